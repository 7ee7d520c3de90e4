"""Activations that are computed again: the same training, one record of each module, gradients in mid-step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.tiny import block, build, losses_of, retinanet, run_config, state_of
from torch.utils.checkpoint import checkpoint

from mmkd_plugin.compat.recomputing import non_reentrant_checkpoints
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders import ModuleOutputRecorder

INSIDE = 'backbone.layer3.1'
PLAIN = dict(fuse_bn=False, channels_last=False)
"""A teacher that runs once a step: there are no options to compare in the first."""
METHODS = dict(
    auto=dict(type='FGD', loss_weight='auto'),
    inside=dict(type='Feature', loss=dict(type='PKDLoss'), tap=dict(student=INSIDE, teacher=INSIDE), adapt='always'),
)


def run(folder: Path, runner_type: str = 'DistillRunner', with_cp: bool = False, **changes: Any) -> Any:
    model = retinanet()
    model['backbone'].update(norm_eval=True, with_cp=with_cp)
    cfg = run_config(folder, 2, model=model, distill=block(methods=METHODS, teacher_options=PLAIN), **changes)
    cfg.runner_type = f'mmkd_plugin.{runner_type}'
    return build(cfg)


@pytest.mark.parametrize(
    'changes',
    [
        dict(with_cp=True),
        dict(activation_checkpointing='backbone'),
        dict(activation_checkpointing=['backbone.layer3', 'neck'], runner_type='FlexibleDistillRunner'),
    ],
    ids=['with_cp', 'backbone', 'flexible'],
)
def test_training_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    taken: list[int] = []
    release = ModuleOutputRecorder.reset_data_buffer

    def count(recorder: ModuleOutputRecorder) -> None:
        if recorder.source == INSIDE and recorder.data_buffer:
            taken.append(len(recorder.data_buffer))
        release(recorder)

    monkeypatch.setattr(ModuleOutputRecorder, 'reset_data_buffer', count)
    plain = run(tmp_path / 'plain')
    plain.train()
    again = run(tmp_path / 'again', **changes)
    again.train()
    assert losses_of(again, 'loss') == pytest.approx(losses_of(plain, 'loss'), rel=1e-6)
    for key, value in state_of(plain).items():
        torch.testing.assert_close(state_of(again)[key], value, rtol=1e-5, atol=1e-7)
    # A record of the student's and one of the teacher's in each of two steps of two runs.
    assert taken == [1] * 8


@pytest.mark.parametrize('runner_type', ['DistillRunner', 'FlexibleDistillRunner'])
def test_unknown_module(tmp_path: Path, runner_type: str) -> None:
    runner = run(tmp_path, runner_type, activation_checkpointing=['backbone.layer5'])
    with pytest.raises(DistillError, match=r'names "backbone.layer5", which is no module of the student: .*layer'):
        runner.train()


def test_other_checkpoints_stay_as_they_are(tmp_path: Path) -> None:
    """The reentrant way runs without gradient first."""
    seen = []

    def double(value: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return 2 * value

    value = torch.ones(2, requires_grad=True)
    with non_reentrant_checkpoints():
        checkpoint(double, value)
        checkpoint(double, value, use_reentrant=True)
    assert seen == [True, False]
    runner = run(tmp_path)
    runner.train()
    assert algorithm_of(runner) is not None
    with pytest.warns(UserWarning, match='use_reentrant'):
        checkpoint(double, value)
    assert seen == [True, False, False]
