"""The pixel-wise and pair-wise parts of structured distillation in the ``distill`` block."""

from __future__ import annotations

import dataclasses
from typing import Literal, Union

from mmkd_plugin.config.methods.base import Method, Parts
from mmkd_plugin.config.probe import ModelPair, ModelTaps
from mmkd_plugin.config.taps import Tap
from mmkd_plugin.errors import DistillError


@dataclasses.dataclass
class PixelWise(Method):
    """Class probabilities of the decode heads, pixel by pixel, Liu et al., CVPR 2019.

    Logits are compared in the size that the teacher's head gives; the student's are resized where theirs differs.

    Attributes:
        pixel_weight: Weight of the term.
        divergence: ``'cross_entropy'`` with the teacher's probabilities, or ``'kl'``; the gradient is the same.
        reduction: ``'pixel_mean'``, or the released codes' ``'batch_sum'`` and ``'element_mean'``.
        temperature: Of both softmaxes.
    """

    pixel_weight: float = 10.0
    divergence: Literal['cross_entropy', 'kl'] = 'cross_entropy'
    reduction: Literal['pixel_mean', 'batch_sum', 'element_mean'] = 'pixel_mean'
    temperature: float = 1.0

    @property
    def active(self) -> bool:
        """Whether the term has a weight."""
        return self.weight != 0 and self.pixel_weight != 0

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss on the logits of both decode heads."""
        heads = models.decode_heads()
        heads.require_same_classes()
        parts = Parts(same_classes=True)
        loss = f'loss_{name}'
        parts.distill_losses[loss] = dict(
            type='mmkd_plugin.PixelWiseLoss',
            pixel_weight=self.pixel_weight,
            divergence=self.divergence,
            reduction=self.reduction,
            temperature=self.temperature,
            align_corners=heads.student.align_corners,
            loss_weight=self.weight,
        )
        parts.loss_forward_mappings[loss] = dict(
            student=parts.record(heads.student.logits, from_student=True),
            teacher=parts.record(heads.teacher.logits, from_student=False),
        )
        return parts


@dataclasses.dataclass
class PairWise(Method):
    """Similarities between all pairs of places of a feature map, Liu et al., CVPR 2019.

    Channels need not agree; the student's map is resized to the teacher's size where it differs.

    Attributes:
        pair_weight: Weight of the term: 0.5 in the released code, 10 in the paper.
        scale: Pooled area as a share of the map.
        patch: Pooled area in cells, one number or height and width, in place of ``scale``; the paper's is 2.
        pooling: ``'max'``, or the paper's ``'avg'``.
        detach_norm: Whether the norm is a constant for the gradient.
        max_gib: Size in GiB that the similarities of one model may take.
        tap: Path of the student's module whose output is compared; None for what the decode head's classifier works on,
            or the coarsest level of the neck or backbone where no module returns that.
        teacher_tap: The same in the teacher; None for the path of ``tap``.
    """

    pair_weight: float = 0.5
    scale: float = 0.5
    patch: Union[int, list, tuple, None] = None  # noqa: UP007
    pooling: Literal['max', 'avg'] = 'max'
    detach_norm: bool = True
    max_gib: float = 1.0
    tap: Union[str, None] = None  # noqa: UP007
    teacher_tap: Union[str, None] = None  # noqa: UP007

    def __post_init__(self) -> None:
        """Refuse a patch that is no size."""
        super().__post_init__()
        sides = [self.patch] if isinstance(self.patch, int) else list(self.patch or (1, 1))
        if len(sides) not in (1, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
            raise DistillError(
                f'The patch of PairWise is {self.patch!r}; give one whole number of cells, or height and width.'
            )

    @property
    def active(self) -> bool:
        """Whether the term has a weight."""
        return self.weight != 0 and self.pair_weight != 0

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss on a feature of both models."""
        student, teacher, align_corners = self._taps(models)
        parts = Parts()
        loss = f'loss_{name}'
        parts.distill_losses[loss] = dict(
            type='mmkd_plugin.PairWiseLoss',
            pair_weight=self.pair_weight,
            scale=self.scale,
            patch=tuple(self.patch) if isinstance(self.patch, (list, tuple)) else self.patch,
            pooling=self.pooling,
            detach_norm=self.detach_norm,
            max_gib=self.max_gib,
            align_corners=align_corners,
            loss_weight=self.weight,
        )
        parts.loss_forward_mappings[loss] = dict(
            student=parts.record(student, from_student=True),
            teacher=parts.record(teacher, from_student=False),
        )
        return parts

    def _taps(self, models: ModelPair) -> tuple[Tap, Tap, bool]:
        """Student's tap, teacher's tap, and whether corners are aligned."""
        head = models.student.decode_head
        align_corners = head is not None and head.align_corners
        ours, theirs = self.tap, self.teacher_tap or self.tap
        student = models.student.at(ours) if ours is not None else _feature(models.student)
        teacher = models.teacher.at(theirs) if theirs is not None else _feature(models.teacher)
        return student, teacher, align_corners


def _feature(model: ModelTaps) -> Tap:
    """What the decode head's classifier works on, or else the coarsest level of the trunk."""
    if model.decode_head is not None and model.decode_head.feature is not None:
        return model.decode_head.feature
    if model.output:
        return model.output[-1]
    raise DistillError(
        f'No module returned what the classifier of {model.name} works on; name a module in tap and teacher_tap, for '
        'instance "backbone.layer4".'
    )
