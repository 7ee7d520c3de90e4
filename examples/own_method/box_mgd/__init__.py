"""Masked generative distillation (MGD, Yang et al., ECCV 2022) inside ground-truth boxes: a method of one's own."""

from __future__ import annotations

from typing import Any, Dict

import torch
from torch import Tensor, nn
from typing_extensions import Annotated

from mmkd_plugin.functional import box_masks
from mmkd_plugin.methods import DistillLoss, LevelMethod
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.settings import Factor, Within


@MODELS.register_module()
class BoxMGDLoss(DistillLoss):
    r"""Generate the teacher's feature from the student's with some cells hidden, and compare inside boxes alone.

    .. math:: L = \frac{1}{C \max(1, \sum B)} \sum B \, (F - G(M \odot S))^2

    B marks the cells that a ground-truth box covers, M hides cells at random, G is two convolutions.

    Args:
        channels: Channels of the teacher feature.
        mask_ratio: Share of the cells that are hidden.
        loss_weight: Weight of the term; 0 switches the method off.
    """

    def __init__(
        self, channels: int, mask_ratio: Annotated[float, Within(0, 1)] = 0.65, loss_weight: Factor = 1.0
    ) -> None:
        super().__init__()
        self.mask_ratio, self.weight = mask_ratio, loss_weight
        layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.generate = nn.Sequential(layers[0], nn.ReLU(), layers[1])

    def terms(
        self, student: Tensor, teacher: Tensor, boxes: Tensor, valid: Tensor, image_shapes: Tensor
    ) -> Dict[str, Tensor]:
        """The weighted term; the boxes arrive because the arguments are called so."""
        if not self.weight:
            return {}
        images, channels, height, width = student.shape
        shown = torch.rand(images, 1, height, width, device=student.device) >= self.mask_ratio
        inside = box_masks(boxes, valid, image_shapes, (height, width))[0] > 0
        error = ((self.generate(student * shown) - teacher.detach()) ** 2).sum(1)
        return {'generated': self.weight * (error * inside).sum() / (channels * inside.sum().clamp(min=1))}


@METHODS.register_module()
class BoxMGD(LevelMethod):
    """Masked generative distillation inside ground-truth boxes, on the levels of the neck."""

    losses = {'': BoxMGDLoss}
    given = ('channels',)

    def of_level(self, level: Any) -> Dict[str, Any]:
        """What the loss needs besides the user's settings."""
        return dict(channels=level.teacher.channels)
