"""The distiller sums levels, works in single precision and waits for nothing."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import TinyBoxes, block, run_config
from mmengine.dataset import pseudo_collate
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
    # The first step of all looks at the teacher's options.
    model(data['inputs'], data['data_samples'], mode='loss')
    with model.distiller.student_recorders:
        model.architecture(data['inputs'], data['data_samples'], mode='loss')
    with HostSyncs() as syncs:
        model.teacher.run(data['inputs'], data['data_samples'], model.distiller.teacher_records_needed())
        model.distiller.compute_terms()
    assert syncs.calls == []


def test_equal_levels_of_several_losses_share_their_masks(tmp_path, monkeypatch):
    from mmkd_plugin.functional import fgd

    methods = {name: dict(type='FGD', temperature=value) for name, value in (('fgd', 0.5), ('other', 0.8))}
    model = MODELS.build(expand_config(run_config(tmp_path, distill=block(methods=methods))).model)
    painted = []

    def counted(*args, **options):
        masks = box_masks(*args, **options)
        painted.append((args[-1], masks))
        return masks

    box_masks = fgd.box_masks
    monkeypatch.setattr(fgd, 'box_masks', counted)
    data = model.data_preprocessor(pseudo_collate([TinyBoxes()[index] for index in range(2)]), training=True)
    steps = []
    for _ in range(2):
        painted.clear()
        model.loss(data['inputs'], data['data_samples'])
        steps.append(list(painted))
    sizes = {size for size, _ in steps[0]}
    # Two methods look at each level, and in the next step all is painted anew.
    assert len(steps[0]) == 2 * len(sizes)
    assert len({id(masks) for _, masks in steps[0]}) == len(sizes)
    assert not {id(masks[0]) for _, masks in steps[0]} & {id(masks[0]) for _, masks in steps[1]}


def test_arguments_are_kept_for_a_second_look_until_the_records_go():
    distiller = Distiller()
    distiller.distill_losses['loss_x'] = torch.nn.MSELoss()
    distiller.loss_forward_mappings = dict(loss_x=dict(input=dict(), target=dict()))
    distiller.get_record = lambda **_: torch.ones(2)
    distiller.compute_terms()
    assert distiller.kept == {}
    distiller.keep = {'loss_x'}
    distiller.compute_terms()
    assert distiller.kept['loss_x'].keys() == {'input', 'target'}
    distiller.release_records()
    assert distiller.kept == {}
