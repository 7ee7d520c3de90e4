"""The distiller sums levels, works in single precision and waits for nothing."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import TinyBoxes, block, run_config
from mmengine.registry import MODELS

from mmkd_plugin.block import expand_config
from mmkd_plugin.distillers import Distiller
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.host_syncs import HostSyncs


def test_levels_of_a_loss_are_added_term_by_term():
    one, two, four = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)
    terms = {
        'loss_a_level0': {'x': one, 'y': two},
        'loss_a_level1': {'x': four},
        'loss_b': {'': two},
    }
    summed = Distiller().sum_levels(terms)
    assert summed == {'loss_a_x': 5, 'loss_a_y': 2, 'loss_b': 2}


def test_losses_that_mmengine_would_not_add_up_are_refused():
    with pytest.raises(DistillError, match='call it "loss_x"'):
        Distiller(distill_losses=dict(x=dict(type='mmkd_plugin.FGDLoss', channels=4)))


def test_losses_get_single_precision():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, student, teacher):
            # Where casting is on, a product of matrices is in half precision.
            seen.extend([student.dtype, teacher.dtype, (torch.ones(1, 1) @ torch.ones(1, 1)).dtype])
            return student.sum()

    distiller = Distiller()
    distiller.distill_losses['loss_x'] = Spy()
    distiller.loss_forward_mappings = dict(loss_x=dict(student=dict(), teacher=dict()))
    records = iter([torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float64)])
    distiller.get_record = lambda **_: next(records)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        distiller.compute_terms()
    assert seen == [torch.float32, torch.float64, torch.float32]


class Listed(torch.nn.Module):
    """A loss over all levels at once."""

    def forward(self, student, teacher):
        return sum((ours - theirs).sum() for ours, theirs in zip(student, teacher))


def listed(*sources: str) -> dict:
    """A distiller that reads two calls of the student's ``x`` as a list, and the teacher's modules named."""
    student = [dict(recorder='x', from_student=True, record_idx=index) for index in range(2)]
    teacher = [dict(recorder=source, from_student=False, record_idx=1) for source in sources]
    return dict(
        student_recorders=dict(x=dict(type='mmkd_plugin.ModuleOutput', source='x')),
        teacher_recorders=dict(a=dict(type='mmkd_plugin.ModuleOutput', source='a')),
        distill_losses=dict(loss_x=dict(type='Listed')),
        loss_forward_mappings=dict(loss_x=dict(student=student, teacher=teacher)),
    )


@pytest.fixture
def listed_loss(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Listed', Listed)


def test_an_argument_may_be_a_list_of_records(listed_loss):
    distiller = Distiller(**listed('a', 'a'))
    values = {('x', 0): 5.0, ('x', 1): 7.0, ('a', 1): 2.0}
    distiller.get_record = lambda recorder, from_student, record_idx: torch.tensor(
        values[recorder, record_idx], requires_grad=from_student
    )
    assert distiller.compute_terms() == {'loss_x': {'': torch.tensor(8.0)}}
    assert distiller.teacher_records_needed() == {'a': 2}
    assert [float(item) for item in distiller.student_features('loss_x')] == [5, 7]


def test_every_record_of_a_list_is_checked(listed_loss):
    with pytest.raises(AssertionError, match='"b" must be in'):
        Distiller(**listed('a', 'b'))


def test_a_whole_distillation_step_waits_for_nothing():
    model = MODELS.build(expand_config(run_config('unused', distill=block())).model).train()
    items = [TinyBoxes()[index] for index in (0, 1, 2)]
    data = model.data_preprocessor(
        dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items]), True
    )
    with model.distiller.student_recorders:
        model.architecture(data['inputs'], data['data_samples'], mode='loss')
    with HostSyncs() as syncs:
        model.teacher.run(data['inputs'], data['data_samples'], model.distiller.teacher_records_needed())
        model.distiller.compute_terms()
    assert syncs.calls == []
