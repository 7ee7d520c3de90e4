"""The first step's table, and the faults that stop a run."""

from __future__ import annotations

import re

import pytest
import torch
from _helpers.tiny import block, build, run_config
from torch import nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS


@MODELS.register_module(force=True)
class FaultyLoss(nn.Module):
    """Returns what a broken loss would."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, student, teacher):
        value = (student.mean() - teacher.mean()) ** 2
        if self.fault == 'nan':
            return value * float('nan')
        if self.fault == 'detached':
            return value.detach()
        if self.fault == 'faint':
            return 3 + 1e-6 * value
        return value * (0 if self.fault == 'zero' else 1e6)


def expanded(tmp_path, **changes):
    cfg = expand_config(run_config(tmp_path, iterations=2, distill=block(teacher=dict(block()['teacher']))))
    distiller = cfg.model.distiller
    feature = dict(type='mmkd_plugin.ModuleOutput', source='backbone.layer2')
    values = dict(
        student_recorders=dict(feature=feature),
        teacher_recorders=dict(feature=feature),
        connectors=dict(),
        distill_losses=dict(loss_x=dict(type='mmkd_plugin.FaultyLoss', fault='none')),
        loss_forward_mappings=dict(
            loss_x=dict(
                student=dict(recorder='feature', from_student=True),
                teacher=dict(recorder='feature', from_student=False),
            )
        ),
    )
    values.update(changes)
    for key, value in values.items():
        distiller[key] = value
    return cfg


def log_of(tmp_path) -> str:
    return '\n'.join(path.read_text() for path in tmp_path.rglob('*.log'))


def test_table_shows_weights_records_terms_and_gradients(tmp_path):
    build(run_config(tmp_path, iterations=2, distill=block())).train()
    log = log_of(tmp_path)
    assert log.count('Distillation at the first step') == 1
    for expected in (
        'teacher weights',
        'neck.fpn_convs.0.conv',
        '4 x 16 x 8 x 8',
        'loss_fgd_level2',
        'foreground',
        ' %',
    ):
        assert expected in log


@pytest.mark.parametrize(('fault', 'message'), [('nan', '"loss_x" is nan'), ('detached', '"loss_x" sends no gradient')])
def test_broken_terms_stop_the_run(tmp_path, fault, message):
    losses = dict(loss_x=dict(type='mmkd_plugin.FaultyLoss', fault=fault))
    with pytest.raises(DistillError, match=message):
        build(expanded(tmp_path, distill_losses=losses)).train()


@pytest.mark.parametrize(('fault', 'message'), [('zero', 'is exactly 0'), ('huge', 'times the task loss')])
def test_suspicious_terms_are_pointed_out(tmp_path, fault, message):
    losses = dict(loss_x=dict(type='mmkd_plugin.FaultyLoss', fault=fault))
    build(expanded(tmp_path, distill_losses=losses)).train()
    assert message in log_of(tmp_path)


def test_module_that_never_runs(tmp_path):
    cfg = expanded(tmp_path)
    cfg.model.distiller.student_recorders.feature.source = 'bbox_head.loss_cls'
    cfg.model.distiller.teacher_recorders.feature.source = 'bbox_head.loss_cls'
    with pytest.raises(DistillError, match='"bbox_head.loss_cls" ran 0 times'):
        build(cfg).train()


def test_frozen_part_of_the_student(tmp_path):
    cfg = expanded(tmp_path)
    cfg.model.architecture.backbone.frozen_stages = 2
    with pytest.raises(DistillError, match='sends no gradient'):
        build(cfg).train()


def test_module_that_does_not_exist(tmp_path):
    cfg = expanded(tmp_path)
    cfg.model.distiller.student_recorders.feature.source = 'backbone.layr2'
    with pytest.raises(DistillError, match='did you mean "backbone.layer'):
        build(cfg).train()


def test_container_that_is_never_called(tmp_path):
    cfg = expanded(tmp_path)
    cfg.model.distiller.student_recorders.feature.source = 'neck.fpn_convs'
    with pytest.raises(DistillError, match='container'):
        build(cfg).train()


def test_recorder_that_nothing_reads(tmp_path):
    cfg = expanded(tmp_path)
    cfg.model.distiller.student_recorders.idle = dict(type='mmkd_plugin.ModuleOutput', source='backbone.layer1')
    with pytest.raises(DistillError, match='"idle" is read by no loss'):
        build(cfg).train()


def test_faint_terms_are_pointed_out_by_their_gradient(tmp_path):
    """Not by their value, which for a term that is large and flat says nothing."""
    losses = dict(loss_x=dict(type='mmkd_plugin.FaultyLoss', fault='faint'))
    build(expanded(tmp_path, distill_losses=losses)).train()
    log = log_of(tmp_path)
    assert re.search(r'Next to nothing beside the gradient of the task loss: "loss_x" \(.* %\)', log)
    assert 'times the task loss' not in log


def test_terms_with_a_gradient_are_not(tmp_path):
    losses = dict(loss_x=dict(type='mmkd_plugin.FaultyLoss', fault='huge'))
    build(expanded(tmp_path, distill_losses=losses)).train()
    assert 'Next to nothing' not in log_of(tmp_path)


@pytest.mark.parametrize(('again', 'looks'), [(3, 1), (0, 0), (9, 0)])
def test_gradients_are_compared_again(tmp_path, again, looks):
    hook = dict(type='mmkd_plugin.SelfCheckHook', again=again)
    build(run_config(tmp_path, iterations=6, distill=block(), custom_hooks=[hook])).train()
    log = log_of(tmp_path)
    assert log.count('Distillation at iteration 4\n') == looks
    assert log.count('levels added up') == 1 + looks
    assert log.count('Distillation at the first step') == 1


def test_it_can_be_switched_off(tmp_path):
    build(run_config(tmp_path, iterations=1, distill=block(self_check=False))).train()
    assert 'Distillation at the first step' not in log_of(tmp_path)


def test_gradients_are_not_left_behind(tmp_path):
    states = []
    for switch in (True, False):
        runner = build(run_config(tmp_path / str(switch), iterations=2, distill=block(self_check=switch)))
        runner.train()
        states.append(runner.model.state_dict())
    first, second = states
    assert all(torch.equal(first[key], second[key]) for key in first)
