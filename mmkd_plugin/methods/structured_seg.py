"""Structured distillation for segmentation, Liu et al., CVPR 2019 and TPAMI 2020: pixels and pairs of pixels."""

from __future__ import annotations

from typing import Dict, Optional, Tuple, Union

from mmengine.dist import get_world_size
from torch import Tensor
from typing_extensions import Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.structured_seg import pair_wise_loss, pixel_wise_loss
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Parts
from mmkd_plugin.probe.models import ModelPair, ModelTaps
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.settings import Count, Factor, Positive


@MODELS.register_module()
class PixelWiseLoss(DistillLoss):
    """The pixel-wise part; see :func:`~mmkd_plugin.functional.structured_seg.pixel_wise_loss` for the formula.

    The released code is ``reduction='batch_sum'`` with the weight 10, which for its batch of 8 images is 80 times the
    mean over pixels.

    Args:
        divergence: ``'cross_entropy'`` with the teacher's probabilities, or ``'kl'``; the gradient is the same.
        reduction: ``'pixel_mean'``, or the released codes' ``'batch_sum'``, over all processes, and ``'element_mean'``.
        temperature: Of both softmaxes.
        loss_weight: Weight of the term; 0 switches the method off.
    """

    def __init__(
        self,
        divergence: Literal['cross_entropy', 'kl'] = 'cross_entropy',
        reduction: Literal['pixel_mean', 'batch_sum', 'element_mean'] = 'pixel_mean',
        temperature: Positive = 1.0,
        loss_weight: Factor = 10.0,
    ) -> None:
        super().__init__()
        self.weight = loss_weight
        self.divergence = divergence
        self.reduction = reduction
        self.temperature = temperature

    def terms(self, student: Tensor, teacher: Tensor) -> Dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Logits, ``(N, C, H, W)``.
            teacher: Logits, the same shape; detached.

        Returns:
            A scalar under ``'pixel'``.

        Raises:
            ValueError: If the logits differ in shape.
        """
        if not self.weight:
            return {}
        loss = pixel_wise_loss(
            student, teacher, divergence=self.divergence, reduction=self.reduction, temperature=self.temperature
        )
        # Gradients are averaged over processes, and a sum over the images of all of them is meant.
        ranks = get_world_size() if self.reduction == 'batch_sum' else 1
        return {'pixel': self.weight * ranks * loss}


@MODELS.register_module()
class PairWiseLoss(DistillLoss):
    """The pair-wise part; see :func:`~mmkd_plugin.functional.structured_seg.pair_wise_loss` for the formula.

    Args:
        scale: Pooled area as a share of the map.
        patch: Pooled area in cells, one number or height and width, in place of ``scale``; the paper's is 2.
        pooling: ``'max'``, or the paper's ``'avg'``.
        detach_norm: Whether the norm is a constant for the gradient.
        max_gib: Size in GiB that the similarities of one model may take; a larger map is refused.
        loss_weight: Weight of the term: 0.5 in the released code, 10 in the paper; 0 switches the method off.
    """

    def __init__(
        self,
        scale: Positive = 0.5,
        patch: Union[Count, Tuple[Count, Count], None] = None,
        pooling: Literal['max', 'avg'] = 'max',
        detach_norm: bool = True,
        max_gib: Positive = 1.0,
        loss_weight: Factor = 0.5,
    ) -> None:
        super().__init__()
        self.weight = loss_weight
        self.scale = scale
        self.patch = (patch, patch) if isinstance(patch, int) else patch
        self.pooling = pooling
        self.detach_norm = detach_norm
        self.max_gib = max_gib

    def terms(self, student: Tensor, teacher: Tensor) -> Dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Feature, ``(N, C_s, H, W)``.
            teacher: Feature, ``(N, C_t, H, W)``; detached. The channels need not agree.

        Returns:
            A scalar under ``'pair'``.

        Raises:
            ValueError: If the maps differ in size, or the pooled ones are too small or too large.
        """
        if not self.weight:
            return {}
        loss = pair_wise_loss(
            student,
            teacher,
            scale=self.scale,
            patch=self.patch,
            pooling=self.pooling,
            detach_norm=self.detach_norm,
            max_gib=self.max_gib,
        )
        return {'pair': self.weight * loss}


@METHODS.register_module()
class PixelWise(Method):
    """Class probabilities of the decode heads, pixel by pixel, Liu et al., CVPR 2019.

    Logits are compared in the size that the teacher's head gives; the student's are resized where theirs differs.
    """

    task, general = 'segmentation', True
    losses = {'': PixelWiseLoss}
    renamed = {'pixel_weight': 'loss_weight'}

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss on the logits of both decode heads."""
        heads = models.decode_heads()
        heads.require_same_classes()
        parts = Parts(same_classes=True)
        maps = parts.record_maps(heads.student.logits, heads.teacher.logits, heads.student.align_corners)
        parts.add_loss(f'loss_{name}', self.loss_config(), **maps)
        return parts


@METHODS.register_module()
class PairWise(Method):
    """Similarities between all pairs of places of a feature map, Liu et al., CVPR 2019.

    Channels need not agree; the student's map is resized to the teacher's size where it differs.

    Attributes:
        tap: The module whose output is compared: its path, or ``dict(student=path, teacher=path)``; None for what the
            decode head's classifier works on, or the coarsest level of the neck or backbone where no module returns
            that.
    """

    task, general = 'segmentation', True
    part_of_share = 0.1
    losses = {'': PairWiseLoss}
    renamed = {
        'pair_weight': 'loss_weight',
        'teacher_tap': 'tap=dict(student=<module path>, teacher=<module path>)',
    }

    tap: Union[str, Dict[str, str], None] = None

    def check(self, where: str) -> None:
        """Refuse a tap that does not name both models."""
        if isinstance(self.tap, dict) and {key for key in self.tap if key != '_scope_'} - {'student', 'teacher'}:
            raise DistillError(
                f'"{where}.tap" is {self.tap!r}; as a dict it must be dict(student=<module path>, teacher=<module '
                'path>).'
            )

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss on a feature of both models."""
        student, teacher, align_corners = self.taps(models)
        parts = Parts()
        config = self.loss_config()
        if isinstance(self.patch, list):
            config['patch'] = tuple(self.patch)
        parts.add_loss(f'loss_{name}', config, **parts.record_maps(student, teacher, align_corners))
        return parts

    def taps(self, models: ModelPair) -> Tuple[Tap, Tap, bool]:
        """Student's tap, teacher's tap, and whether corners are aligned."""
        head = models.student.decode_head
        paths = self.tap if isinstance(self.tap, dict) else dict.fromkeys(('student', 'teacher'), self.tap)
        found = []
        for role, model in (('student', models.student), ('teacher', models.teacher)):
            path: Optional[str] = paths.get(role)
            found.append(_feature(model) if path is None else model.at(path))
        return found[0], found[1], head is not None and head.align_corners


def _feature(model: ModelTaps) -> Tap:
    """What the decode head's classifier works on, or else the coarsest level of the trunk."""
    if model.decode_head is not None and model.decode_head.feature is not None:
        return model.decode_head.feature
    if model.output:
        return model.output[-1]
    raise DistillError(
        f'No module returned what the classifier of {model.name} works on; name a module in tap, for instance '
        '"backbone.layer4".'
    )
