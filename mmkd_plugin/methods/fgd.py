"""Focal and global distillation (FGD), Yang et al., CVPR 2022."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple, Union

import torch
from mmcv.cnn import ContextBlock
from torch import Tensor, nn
from typing_extensions import Literal

from mmkd_plugin.functional.fgd import box_masks, fgd_loss
from mmkd_plugin.functional.reductions import attention_pool
from mmkd_plugin.methods.level import LevelMethod
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.probe.models import LevelPair
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.settings import Count, Factor, Positive, Weight


class GlobalContext(ContextBlock):
    """The block of GCNet (Cao et al., 2019) with which FGD compares relations between pixels.

    It gives what the block adds to every position, which is nothing at the start.

    Args:
        channels: Channels of the feature.
    """

    def __init__(self, channels: int) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(channels, ratio=0.5 if channels > 1 else 1.0)
        # In this order a seed gives the weights that all measured numbers started from.
        for layer in (self.conv_mask, self.channel_add_conv[-1], self.channel_add_conv[0]):
            layer.reset_parameters()
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """What is added to a feature ``(N, C, H, W)``: ``(N, C, 1, 1)``."""
        pooled = attention_pool(x, self.conv_mask.weight.flatten(), self.conv_mask.bias)
        return self.channel_add_conv(pooled[..., None, None])


@MODELS.register_module()
class FGDLoss(DistillLoss):
    """One pyramid level of FGD; see :func:`~mmkd_plugin.functional.fgd.fgd_loss` for the formulas.

    Every level has its own module, since the two context blocks hold parameters; the levels are added. The default
    weights are the paper's for anchor-based one-stage detectors; the sums are not divided by the size of the map, so
    they must be small.

    Args:
        channels: Channels of the teacher feature, to which the student is adapted before.
        temperature: Of the spatial and the channel attention.
        foreground_weight: Alpha of the paper.
        background_weight: Beta.
        attention_weight: Gamma.
        relation_weight: Lambda.
        areas: ``'apart'`` weighs foreground and background each by itself; ``'together'``, the paper's ablation, weighs
            all cells alike, by ``background_weight``, and has no foreground.
        attend: Which attentions weigh the cells and are compared: the paper's ablation.
        usual_size: Height and width, in pixels, of the usual input; where given, all terms are divided by the area of
            the batch's largest image in that one, as the authors do for YOLOX, whose input changes its size.
        loss_weight: Factor on all terms; 0 switches the method off.
    """

    def __init__(
        self,
        channels: int,
        temperature: Positive = 0.5,
        foreground_weight: Weight = 1e-3,
        background_weight: Weight = 5e-4,
        attention_weight: Weight = 1e-3,
        relation_weight: Weight = 5e-6,
        areas: Literal['apart', 'together'] = 'apart',
        attend: Literal['both', 'spatial', 'channel', 'none'] = 'both',
        usual_size: Optional[Tuple[Count, Count]] = None,
        loss_weight: Factor = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.together = areas == 'together'
        self.attend: Literal['both', 'spatial', 'channel', 'none'] = attend
        self.usual_size = usual_size
        weights = {
            'foreground': foreground_weight * loss_weight,
            'background': background_weight * loss_weight,
            'attention': attention_weight * loss_weight,
            'relation': relation_weight * loss_weight,
        }
        without = {'foreground'} if self.together else set()
        without |= {'attention'} if attend == 'none' else set()
        self.weights = {name: weight for name, weight in weights.items() if weight and name not in without}
        # Parameters that no loss reaches would stall distributed training.
        related = 'relation' in self.weights
        self.student_context: Optional[nn.Module] = GlobalContext(channels) if related else None
        self.teacher_context: Optional[nn.Module] = GlobalContext(channels) if related else None

    def terms(
        self, student: Tensor, teacher: Tensor, boxes: Tensor, valid: Tensor, image_shapes: Tensor
    ) -> Dict[str, Tensor]:
        """The weighted terms of this level, without those of weight 0.

        Args:
            student: Adapted student feature, ``(N, C, H, W)``.
            teacher: Teacher feature, ``(N, C, H, W)``; detached.
            boxes: Padded ground truth, ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input.
            valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
            image_shapes: ``(N, 2)``, height and width of each image before padding, in pixels.

        Returns:
            Scalars under ``'foreground'``, ``'background'``, ``'attention'`` and ``'relation'``.

        Raises:
            ValueError: If the two features differ in shape.
        """
        terms = fgd_loss(
            student,
            teacher,
            boxes,
            valid,
            image_shapes,
            self.student_context,
            self.teacher_context,
            temperature=self.temperature,
            terms=self.weights,
            together=self.together,
            attend=self.attend,
        )
        area = self._area(image_shapes)
        return {name: weight * getattr(terms, name) / area for name, weight in self.weights.items()}

    def masks(self, boxes: Tensor, valid: Tensor, image_shapes: Tensor, size: Tuple[int, int]) -> Tuple[Tensor, Tensor]:
        """What each cell of a map weighs in this level's two terms; arguments as in :meth:`terms`.

        Args:
            boxes: Padded ground truth.
            valid: False where a row of ``boxes`` is padding.
            image_shapes: Height and width of each image.
            size: Height and width of the map.

        Returns:
            Foreground and background, ``(N, H, W)`` each, as :func:`~mmkd_plugin.functional.fgd.box_masks` gives them.
        """
        return box_masks(boxes, torch.zeros_like(valid) if self.together else valid, image_shapes, size)

    def _area(self, image_shapes: Tensor) -> Union[Tensor, float]:
        """Area of the largest image in the usual one."""
        if self.usual_size is None:
            return 1.0
        height, width = image_shapes.amax(0).unbind()
        return height * width / (self.usual_size[0] * self.usual_size[1])


@METHODS.register_module()
class FGD(LevelMethod):
    """Focal and global distillation on the levels of the neck, Yang et al., CVPR 2022.

    Attributes:
        tap: ``'pre_norm'`` takes each level's last convolution before norm and activation, as the authors do;
            ``'output'`` takes what the neck returns.
    """

    task, general = 'detection', True
    losses = {'': FGDLoss}
    given = ('channels',)

    tap: Literal['pre_norm', 'output'] = 'pre_norm'

    def of_level(self, level: LevelPair) -> Dict[str, Any]:
        """The channels of the two context blocks."""
        return dict(channels=level.teacher.channels)
