"""A compiled student trains as it does without, and is seen by every recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny_seg
from _helpers.tiny import block, build, faster_rcnn, losses_of, retinanet, run_config, state_of
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.engine.compiling import _regions
from mmkd_plugin.errors import DistillError

AOT = dict(backend='aot_eager')
AUTO = dict(fgd=dict(type='FGD', loss_weight='auto'), chen=dict(type='Chen', loss_weight='auto'))


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    yield
    getattr(torch, '_dynamo').reset()  # noqa: B009


def compiled(runner: Any) -> list[str]:
    named = runner.model.student.named_modules()
    return [name for name, module in named if 'forward' in vars(module)]


def assert_same(first: Any, second: Any) -> None:
    assert losses_of(first, 'loss') == pytest.approx(losses_of(second, 'loss'), rel=1e-4)
    for key, value in state_of(first).items():
        torch.testing.assert_close(state_of(second)[key], value, rtol=1e-3, atol=1e-5)


def test_largest_parts_around_what_is_recorded() -> None:
    inner = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    model = nn.Sequential(nn.Sequential(inner, nn.Sequential(nn.Conv2d(1, 1, 1))), nn.Sequential(nn.ReLU()))
    assert [path for path, _ in _regions('net', model, [])] == ['net']
    assert [path for path, _ in _regions('net', model, ['net'])] == ['net']
    assert [path for path, _ in _regions('net', model, ['net.0.0'])] == ['net.0.0', 'net.0.1']
    assert [path for path, _ in _regions('net', model, ['net.0.0.1'])] == ['net.0.1']


@pytest.mark.parametrize('runner_type', ['DistillRunner', 'FlexibleDistillRunner'])
def test_detector(tmp_path: Path, runner_type: str) -> None:
    """FGD compares necks, Chen what the heads return; gradients are compared in the middle of the step."""
    runners = []
    for options in (None, AOT):
        cfg = run_config(tmp_path / str(options), 3, distill=block(methods=AUTO), compile=options)
        cfg.runner_type = f'mmkd_plugin.{runner_type}'
        runners.append(build(cfg))
        runners[-1].train()
    assert_same(*runners)
    assert not compiled(runners[0])
    assert {'backbone', 'bbox_head'} <= set(compiled(runners[1]))
    MODELS.build(retinanet()).load_state_dict(runners[1].model.state_dict(), strict=True)


def test_segmentor_that_is_recorded_inside_of_its_head(tmp_path: Path) -> None:
    method = dict(type='Holistic', widths=[8, 8], optimizer=dict(type='SGD', lr=0.1))
    runners = []
    for options in (None, AOT):
        model = tiny_seg.pspnet(dropout=0)
        cfg = tiny_seg.run_config(
            tmp_path / str(options), 2, model=model, distill=tiny_seg.block(method), compile=options
        )
        runners.append(build(cfg))
        runners[-1].train()
    assert_same(*runners)
    assert {'decode_head.bottleneck', 'auxiliary_head'} <= set(compiled(runners[1]))
    assert 'decode_head' not in compiled(runners[1])


def test_heads_on_regions_are_compiled(tmp_path: Path) -> None:
    cfg = run_config(tmp_path, 1, model=faster_rcnn(), distill=block(teacher=faster_rcnn(width=24)), compile=AOT)
    runner = build(cfg)
    runner.train()
    assert {'rpn_head', 'roi_head.bbox_head'} <= set(compiled(runner))
    assert 'roi_head' not in compiled(runner)


def test_target_is_refused(tmp_path: Path) -> None:
    runner = build(run_config(tmp_path, 1, distill=block(), compile=dict(target='train_step')))
    with pytest.raises(DistillError, match='compiles the networks of the student; write True, or a dict'):
        runner.train()


@pytest.mark.slow
def test_with_the_default_backend(tmp_path: Path) -> None:
    runners = []
    for wanted in (False, True):
        cfg = run_config(tmp_path / str(wanted), 2, distill=block(methods=AUTO), compile=wanted)
        runners.append(build(cfg))
        runners[-1].train()
    assert_same(*runners)
