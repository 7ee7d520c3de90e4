"""Pictures of the current batch, at an interval, through whatever backend the run has."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from _helpers import tiny_seg
from _helpers.tiny import block, build, losses_of, run_config, state_of
from PIL import Image

from mmkd_plugin.engine import visualization_hook
from mmkd_plugin.engine.visualization_hook import DistillVisualizationHook
from mmkd_plugin.errors import DistillError

HOOK = 'mmkd_plugin.DistillVisualizationHook'
BOTH = dict(fgd=dict(type='FGD'), fgi=dict(type='FGI'))


def trained(work_dir: Path, iterations: int = 3, backend: str = 'LocalVisBackend', **hook: Any) -> Any:
    """A run of FGD and FGI with the hook."""
    cfg = run_config(
        work_dir,
        iterations=iterations,
        distill=block(methods=BOTH),
        custom_hooks=[dict(type=HOOK, **hook)] if hook else [],
        visualizer=dict(type='DetLocalVisualizer', vis_backends=[dict(type=backend)]),
    )
    runner = build(cfg)
    runner.train()
    return runner


def test_pictures_at_the_first_step_and_at_the_interval(tmp_path: Path) -> None:
    trained(tmp_path, iterations=5, interval=2)
    files = sorted(path.name for path in tmp_path.rglob('vis_image/*.png'))
    names = ('areas', 'attention', 'cells', 'features', 'predictions')
    assert files == [f'distill_{name}_{step}.png' for name in names for step in (1, 2, 4)]
    for path in tmp_path.rglob('vis_image/distill_a*.png'):
        with Image.open(path) as picture:
            # The image and three levels.
            assert picture.size[0] == int(100 * (2.3 * 4 + 0.9))


def test_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    seen = trained(tmp_path / 'seen', interval=1, images=2)
    blind = trained(tmp_path / 'blind')
    assert losses_of(seen, 'loss') == losses_of(blind, 'loss')
    other = state_of(blind)
    assert all(torch.equal(value, other[key]) for key, value in state_of(seen).items())
    # Two images of each step, named apart.
    assert len(list((tmp_path / 'seen').rglob('vis_image/distill_attention_1_*.png'))) == 3


def test_nothing_watches_between_the_pictures(tmp_path: Path) -> None:
    drawn: list[int] = []
    hook = DistillVisualizationHook(interval=4, pictures=['attention'])
    runner = build(run_config(tmp_path, iterations=6, distill=block()))
    runner.register_hook(hook)
    counts = {}
    original = hook.before_train_iter

    def before(runner: Any, *args: Any, **kwargs: Any) -> None:
        original(runner, *args, **kwargs)
        counts[runner.iter + 1] = len(runner.model.student._forward_pre_hooks)

    def draw(*args: Any) -> dict[str, Any]:
        drawn.append(runner.iter + 1)
        return {}

    with mock.patch.object(hook, 'before_train_iter', before), mock.patch.object(hook, '_draw', draw):
        runner.train()
    plain = counts[2]
    assert counts == {step: plain + (step in (1, 4)) for step in range(1, 7)}
    assert drawn == [1, 4]


def test_other_processes_draw_nothing(tmp_path: Path) -> None:
    with mock.patch.object(visualization_hook, 'is_main_process', return_value=False):
        trained(tmp_path, iterations=1, interval=1)
    assert not list(tmp_path.rglob('vis_image/*.png'))


def test_tensorboard_gets_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(tmp_path, backend='TensorboardVisBackend', interval=2, pictures=('attention', 'areas'))
    [events] = tmp_path.rglob('events.out.tfevents.*')
    seen = EventAccumulator(str(events), size_guidance=dict(images=0))
    seen.Reload()
    assert sorted(seen.Tags()['images']) == ['distill_areas', 'distill_attention']
    images = seen.Images('distill_attention')
    assert [image.step for image in images] == [1, 2]
    assert images[0].width == int(100 * (2.3 * 4 + 0.9)) and images[0].height > 300
    assert images[0].encoded_image_string[:4] == b'\x89PNG'


def test_segmentor_has_attention_and_label_maps(tmp_path: Path) -> None:
    cfg = tiny_seg.run_config(
        tmp_path, iterations=1, distill=tiny_seg.block(dict(type='PairWise')), custom_hooks=[dict(type=HOOK)]
    )
    build(cfg).train()
    files = {path.name: path for path in tmp_path.rglob('vis_image/*.png')}
    assert set(files) == {'distill_attention_1.png', 'distill_predictions_1.png'}
    with Image.open(files['distill_predictions_1.png']) as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 100


def test_run_that_does_not_distil_is_told_once(tmp_path: Path) -> None:
    build(run_config(tmp_path, iterations=2, custom_hooks=[dict(type=HOOK, interval=1)])).train()
    [log] = tmp_path.rglob('*.log')
    assert log.read_text().count('has nothing to draw, because the run does not distil') == 1


@pytest.mark.parametrize(
    ('options', 'fault'),
    [
        (dict(interval=0), '"interval" of DistillVisualizationHook is 0'),
        (dict(images=1.5), '"images" of DistillVisualizationHook is 1.5'),
        (dict(pictures=['attentoin']), 'draws no "attentoin": did you mean "attention"'),
    ],
)
def test_wrong_options(options: dict, fault: str) -> None:
    with pytest.raises(DistillError, match=fault):
        DistillVisualizationHook(**options)


def test_unknown_method_ends_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(
        DistillError, match='No method "fdg" of the distill block compares maps: did you mean "fgi" or "fgd"'
    ):
        trained(tmp_path, interval=1, method='fdg')
