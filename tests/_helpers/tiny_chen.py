"""Chen et al. 2017 on small detectors: the expanded config, the model, and one step with what was recorded."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS

from _helpers.tiny import batch, block, faster_rcnn, retinanet, run_config
from mmkd_plugin.block import expand_config

OFF = dict(hard_share=1.0, regression_weight=0, hint_weight=0)


def expand(student=None, teacher=None, others=None, block_keys=None, **keys):
    """The expanded model config of Chen, alone or with other methods."""
    student, teacher = student or retinanet(), teacher or retinanet(width=24)
    methods = dict(chen=dict(type='Chen', **keys), **(others or {}))
    distill = block(teacher=teacher, methods=methods, **(block_keys or {}))
    return expand_config(run_config('unused', model=student, distill=distill)).model


def two_stage(**keys):
    return expand(faster_rcnn(), faster_rcnn(width=24), **keys)


def build(config):
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    model.init_weights()
    return model


class Step:
    """One training step and what the recorders of the heads held in it, a dict of fields for each record."""

    def __init__(self, model, indices=(0, 1, 2)) -> None:
        self.data = batch(model, indices)
        self.records: dict[str, list[dict[str, torch.Tensor]]] = {}
        model.step_observers.append(self._observe)
        torch.manual_seed(1)
        self.losses = model(**self.data, mode='loss')
        model.step_observers.remove(self._observe)

    def _observe(self, model, losses) -> None:
        distiller = model.distiller
        recorders = {**distiller.student_recorders.recorders, **distiller.teacher_recorders.recorders}
        for name, recorder in recorders.items():
            if name.endswith(('_samples', '_predictions')):
                self.records[name] = [
                    {field: recorder.get_record_data(index, field) for field in recorder.fields}
                    for index in range(len(recorder.data_buffer))
                ]
