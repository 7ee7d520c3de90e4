"""The distiller sums levels, works in single precision and waits for nothing."""

from __future__ import annotations

import torch
from _helpers.host_sync import HostSyncs
from _helpers.tiny import TinyBoxes, block, run_config
from mmengine.registry import MODELS

from mmkd_plugin.config import expand_config
from mmkd_plugin.distillers import Distiller


def test_levels_of_a_loss_are_added_term_by_term():
    one, two, four = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)
    terms = {
        'loss_a_level0': {'x': one, 'y': two},
        'loss_a_level1': {'x': four},
        'loss_b': {'': two},
    }
    summed = Distiller().sum_levels(terms)
    assert summed == {'loss_a_x': 5, 'loss_a_y': 2, 'loss_b': 2}


def test_losses_get_single_precision():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, student, teacher):
            seen.extend([student.dtype, teacher.dtype, torch.is_autocast_enabled('cpu')])
            return student.sum()

    distiller = Distiller()
    distiller.distill_losses['loss_x'] = Spy()
    distiller.loss_forward_mappings = dict(loss_x=dict(student=dict(), teacher=dict()))
    records = iter([torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float64)])
    distiller.get_record = lambda **_: next(records)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        distiller.compute_terms()
    assert seen == [torch.float32, torch.float64, False]


def test_a_whole_distillation_step_waits_for_nothing():
    model = MODELS.build(expand_config(run_config('unused', distill=block())).model).train()
    items = [TinyBoxes()[index] for index in (0, 1, 2)]
    data = model.data_preprocessor(
        dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items]), True
    )
    with model.distiller.student_recorders:
        model.architecture(data['inputs'], data['data_samples'], mode='loss')
    with HostSyncs() as syncs:
        model.teacher.run(data['inputs'], data['data_samples'])
        model.distiller.compute_terms()
    assert syncs.calls == []
