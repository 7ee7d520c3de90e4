"""Structured distillation for segmentation, Liu et al., CVPR 2019 and TPAMI 2020: pixels and pairs of pixels."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd_plugin.functional.soft_labels import DIVERGENCES
from mmkd_plugin.functional.structured_seg import PIXEL_REDUCTIONS, POOLINGS, pair_wise_loss, pixel_wise_loss
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.checks import require_choice, require_positive
from mmkd_plugin.utilities.resize import resize_map


@MODELS.register_module()
class PixelWiseLoss(nn.Module):
    """The pixel-wise part; see :func:`~mmkd_plugin.functional.structured_seg.pixel_wise_loss` for the formula.

    The released code is ``reduction='batch_sum'`` with the weight 10, which for its batch of 8 images is 80 times the
    mean over pixels.

    Args:
        pixel_weight: Weight of the term.
        divergence: ``'cross_entropy'`` or ``'kl'``.
        reduction: ``'pixel_mean'``, ``'batch_sum'`` or ``'element_mean'``.
        temperature: T.
        align_corners: Where the maps differ in size, the student's is resized to the teacher's, with or without
            aligned corners; None refuses them.
        loss_weight: Multiplies the term.
    """

    def __init__(
        self,
        pixel_weight: float = 10.0,
        divergence: str = 'cross_entropy',
        reduction: str = 'pixel_mean',
        temperature: float = 1.0,
        align_corners: bool | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice('divergence', divergence, DIVERGENCES)
        require_choice('reduction', reduction, PIXEL_REDUCTIONS)
        require_positive('The temperature of the pixel-wise loss', temperature)
        self.weight = pixel_weight * loss_weight
        self.divergence = divergence
        self.reduction = reduction
        self.temperature = temperature
        self.align_corners = align_corners

    def forward(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Logits, ``(N, C, H, W)``.
            teacher: Logits, the same shape unless the student's are resized; detached.

        Returns:
            A scalar under ``'pixel'``.

        Raises:
            ValueError: If the logits differ in shape and are not resized.
        """
        if not self.weight:
            return {}
        student = _fit(student, teacher, self.align_corners)
        loss = pixel_wise_loss(
            student, teacher, divergence=self.divergence, reduction=self.reduction, temperature=self.temperature
        )
        return {'pixel': self.weight * loss}


@MODELS.register_module()
class PairWiseLoss(nn.Module):
    """The pair-wise part; see :func:`~mmkd_plugin.functional.structured_seg.pair_wise_loss` for the formula.

    Args:
        pair_weight: Weight of the term: 0.5 in the released code, 10 in the paper.
        scale: Pooled area as a share of the map.
        patch: Pooled area in cells, one number or height and width, in place of ``scale``.
        pooling: ``'max'`` or ``'avg'``.
        detach_norm: Whether the norm is a constant for the gradient.
        max_gib: Size in GiB that the similarities of one model may take; a larger map is refused.
        align_corners: Where the maps differ in size, the student's is resized to the teacher's, with or without
            aligned corners; None refuses them.
        loss_weight: Multiplies the term.
    """

    def __init__(
        self,
        pair_weight: float = 0.5,
        scale: float = 0.5,
        patch: int | tuple[int, int] | None = None,
        pooling: str = 'max',
        detach_norm: bool = True,
        max_gib: float = 1.0,
        align_corners: bool | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice('pooling', pooling, POOLINGS)
        self.weight = pair_weight * loss_weight
        self.scale = scale
        self.patch = (patch, patch) if isinstance(patch, int) else patch
        self.pooling = pooling
        self.detach_norm = detach_norm
        self.max_gib = max_gib
        self.align_corners = align_corners

    def forward(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Feature, ``(N, C_s, H, W)``.
            teacher: Feature, ``(N, C_t, H, W)``; detached. The channels need not agree.

        Returns:
            A scalar under ``'pair'``.

        Raises:
            ValueError: If the maps differ in size and are not resized, or the pooled ones are too small or too large.
        """
        if not self.weight:
            return {}
        student = _fit(student, teacher, self.align_corners)
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


def _fit(student: Tensor, teacher: Tensor, align_corners: bool | None) -> Tensor:
    """The student's map in the teacher's size."""
    if align_corners is None:
        return student
    return resize_map(student, (teacher.shape[2], teacher.shape[3]), align_corners=align_corners)
