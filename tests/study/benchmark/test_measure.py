"""All sides are measured on the same batches; what a loss costs shows up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny, tiny_seg
from mmengine.config import Config
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS
from mmkd_plugin.study.benchmark import measure as module
from mmkd_plugin.study.benchmark import razor
from mmkd_plugin.study.benchmark.case import Case, expanded, require_measurable
from mmkd_plugin.study.benchmark.measure import ALONE, FLOOR, OURS, RAZOR, SIDES, measure

CASE = Case((64, 64), batch=2, boxes=3)
PKD = dict(type='Feature', loss=dict(type='mmrazor.PKDLoss'))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Asking for the versions of all compilers and laying out configs takes longer than such a run.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', '')


@MODELS.register_module(force=True)
class QuietLoss(nn.Module):
    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return (student.mean() - teacher.mean()) ** 2


@MODELS.register_module(force=True)
class CuriousLoss(QuietLoss):
    """Waits for the device five times a level."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            float(student.detach().max())
        return super().forward(student, teacher)


def detector(folder: Path, **methods: Any) -> Config:
    return tiny.run_config(folder, distill=tiny.block(methods=methods or dict(pkd=PKD)))


def test_four_sides_in_turns(tmp_path: Path) -> None:
    done: list[int] = []
    before = set(tmp_path.parent.rglob('*'))
    found = measure(detector(tmp_path), CASE, 3, progress=done.append)
    assert tuple(found.sides) == SIDES and found.missing == {}
    assert all(len(side.seconds) == 3 and min(side.seconds) > 0 for side in found.sides.values())
    assert (found.student, found.teacher, found.methods) == ('RetinaNet ResNet-18', 'RetinaNet ResNet-18', 'PKDLoss')
    assert done[-1] == 3 and sorted(done) == done
    sides = found.sides
    # The teacher is held, and the student alone has none.
    assert sides[ALONE].held < sides[FLOOR].held <= sides[OURS].held
    assert all(side.held < side.peak for side in sides.values())
    assert set(tmp_path.parent.rglob('*')) == before


def test_what_waits_is_counted(tmp_path: Path) -> None:
    sides = (FLOOR, OURS)
    waits = {}
    for name in ('QuietLoss', 'CuriousLoss'):
        method = dict(type='Feature', loss=dict(type=f'mmkd_plugin.{name}'))
        found = measure(detector(tmp_path, one=method), CASE, 1, sides).sides
        assert tuple(found) == sides
        waits[name] = found[OURS].syncs - found[FLOOR].syncs
    # Three levels.
    assert waits['CuriousLoss'] - waits['QuietLoss'] == 15


def test_a_method_that_mmrazor_lacks_has_a_reason(tmp_path: Path) -> None:
    found = measure(tiny.run_config(tmp_path, distill=tiny.block()), CASE, 1)
    assert tuple(found.sides) == (ALONE, FLOOR, OURS) and found.missing == {RAZOR: 'MMRazor has no FGDLoss.'}


def test_what_pulls_elsewhere_is_not_called_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warmer(loss: Any, shape: tuple) -> tuple:
        config, names = razor._pixel_wise(loss, shape)
        return dict(config, tau=4.0), names

    cfg = tiny_seg.run_config(tmp_path, distill=tiny_seg.block(dict(type='PixelWise')))
    case = Case((64, 64))
    assert RAZOR in measure(cfg, case, 1).sides
    monkeypatch.setitem(razor._LOSSES, 'PixelWiseLoss', warmer)
    found = measure(cfg, case, 1)
    assert RAZOR not in found.sides and 'pulls the student elsewhere' in found.missing[RAZOR]


def test_schedules_do_not_hide_what_a_method_costs(tmp_path: Path) -> None:
    cfg = detector(tmp_path, pkd=dict(PKD, schedule=dict(start=100)))
    assert 'schedules' not in expanded(cfg, CASE, tmp_path).model.distiller


def test_the_batches_are_those_asked_for(tmp_path: Path) -> None:
    run = expanded(detector(tmp_path), Case((96, 64), batch=3, boxes=11), tmp_path)
    dataset = tiny.DATASETS.build(run.train_dataloader.dataset)
    assert run.train_dataloader.batch_size == 3 and len(dataset) == 6
    for item in (dataset[0], dataset[1]):
        assert item['inputs'].shape == (3, 96, 64) and len(item['data_samples'].gt_instances) == 11


def test_own_data_are_read_as_the_config_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    read = module.read_batches

    def watched(*args: Any) -> Any:
        seen.append(read(*args))
        return seen[-1]

    monkeypatch.setattr(module, 'read_batches', watched)
    found = measure(detector(tmp_path), Case(data=True), 1, (FLOOR, OURS))
    batch = seen[0].batches[0]
    assert len(batch['inputs']) == 4 and OURS in found.sides
    assert {tuple(image.shape) for image in batch['inputs']} == {(3, 64, 64), (3, 48, 56)}


def test_half_precision_reaches_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types = set()
    run = expanded(detector(tmp_path), Case((64, 64), amp=True), tmp_path)
    assert run.optim_wrapper.type == 'mmkd_plugin.HalfOptimWrapper'
    plain = nn.Conv2d.forward

    def watched(self: nn.Conv2d, *args: Any) -> torch.Tensor:
        found = plain(self, *args)
        types.add(found.dtype)
        return found

    monkeypatch.setattr(nn.Conv2d, 'forward', watched)
    method = dict(type='Feature', loss=dict(type='mmkd_plugin.QuietLoss'))
    measure(detector(tmp_path, one=method), Case((64, 64), amp=True), 1, (FLOOR, OURS))
    assert torch.bfloat16 in types


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(DistillError, match='no distill block'):
        require_measurable(Config(dict(model={}, default_scope='mmdet')), CASE)
    off = tiny.block(methods=dict(fgd=dict(type='FGD', loss_weight=0)))
    with pytest.raises(DistillError, match='weight 0'):
        require_measurable(Config(dict(model={}, default_scope='mmdet', distill=off)), CASE)
    with pytest.raises(DistillError, match='default_scope of the config is None'):
        require_measurable(Config(dict(model={}, distill=tiny.block())), CASE)
    with pytest.raises(DistillError, match='--boxes is for detectors'):
        require_measurable(Config(dict(model={}, default_scope='mmseg', distill=tiny.block())), CASE)
    with pytest.raises(DistillError, match='no train_dataloader'):
        require_measurable(Config(dict(model={}, distill=tiny.block())), Case(data=True))
    with pytest.raises(DistillError, match='--size has no place beside it'):
        Case((64, 64), data=True)
    for device, reason in (('tpu', 'give cpu, cuda'), ('cuda', 'torch finds none')):
        if not (device == 'cuda' and torch.cuda.is_available()):
            with pytest.raises(DistillError, match=reason):
                Case(device=device)
