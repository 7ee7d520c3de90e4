"""Files of weights as other people's code lays them out."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn

State = OrderedDict


def trained(config: dict, seed: int = 1) -> nn.Module:
    """A model whose every weight is its own."""
    model = MODELS.build(ConfigDict(copy.deepcopy(config)))
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


def below(prefix: str, state: dict[str, Tensor]) -> State:
    return State((f'{prefix}.{key}', value) for key, value in state.items())


def authors_fgd(student: nn.Module, teacher: nn.Module) -> dict:
    """A checkpoint as the authors' distiller of MMDetection 2 leaves it."""
    state = State({**below('teacher', teacher.state_dict()), **below('student', student.state_dict())})
    for level in range(3):
        state[f'distill_losses.loss_fgd_fpn_{level}.conv_mask_s.weight'] = torch.ones(1, 16, 1, 1)
        # What its hooks saw last are buffers.
        state[f'student_neck_fpn_convs_{level}_conv'] = torch.ones(2, 16, 8 >> level, 8 >> level)
        state[f'teacher_neck_fpn_convs_{level}_conv'] = torch.ones(2, 16, 8 >> level, 8 >> level)
    return dict(meta=dict(mmdet_version='2.18.0', epoch=24), state_dict=state, optimizer={})
