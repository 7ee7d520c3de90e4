"""Two processes train one student: no unused parameters, equal weights, a plain checkpoint."""

from __future__ import annotations

import pytest
import torch
from _helpers import tiny_seg
from _helpers.ranks import train_on_two_ranks
from _helpers.tiny import retinanet
from mmengine.registry import MODELS

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.engine.fault import read_step


def test_two_ranks_end_with_the_same_student(tmp_path):
    first, second = train_on_two_ranks(tmp_path)
    assert any(key.startswith('distiller.connectors') for key in first)
    assert not any('teacher.' in key for key in first)
    assert all(torch.equal(first[key], second[key]) for key in first)
    state = load_checkpoint_file(str(tmp_path / 'run' / 'iter_3.pth'))['state_dict']
    MODELS.build(retinanet()).load_state_dict(state, strict=True)


def test_two_ranks_go_on_after_a_schedule_has_stopped(tmp_path):
    first, second = train_on_two_ranks(tmp_path, '1')
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_ranks_end_with_the_same_discriminator(tmp_path):
    first, second = train_on_two_ranks(tmp_path, 'holistic')
    name = 'distiller.distill_losses.loss_seg.discriminator.last.weight'
    assert name in first
    assert all(torch.equal(first[key], second[key]) for key in first)
    checkpoint = load_checkpoint_file(str(tmp_path / 'run' / 'iter_3.pth'))
    MODELS.build(tiny_seg.pspnet()).load_state_dict(checkpoint['state_dict'], strict=True)


@pytest.mark.parametrize(('looks', 'steps'), [('at_once', 1), ('delayed', 2)])
def test_two_ranks_end_together_where_one_is_not_finite(tmp_path, looks, steps):
    """The process whose term broke tells of it; the other one's gradients are not finite in the same step."""
    first, second = train_on_two_ranks(tmp_path, 'breaking', looks)
    assert first == second
    assert str(first['sentence']).startswith('Iteration 2: "loss_x" at level 1 is nan (images ')
    assert first['steps'] == steps
    assert not list((tmp_path / 'run').glob('*.pth'))
    kept = read_step(str(tmp_path / 'run' / 'fault_iter_2'))
    assert kept['rank'] == 1
    # Without waiting both agree after the third step, behind updates that have spread the fault.
    assert (kept['weights'] is None) == (looks == 'delayed')
