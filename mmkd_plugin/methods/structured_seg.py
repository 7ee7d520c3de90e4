"""The pixel-wise, pair-wise and holistic parts of structured distillation in the ``distill`` block."""

from __future__ import annotations

import dataclasses
from typing import Literal, Union

from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.probe.models import ModelPair, ModelTaps
from mmkd_plugin.probe.taps import Tap


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
        parts.loss_forward_mappings[loss] = parts.record_both(heads.student.logits, heads.teacher.logits)
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
        student, teacher, align_corners = self.taps(models)
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
        parts.loss_forward_mappings[loss] = parts.record_both(student, teacher)
        return parts

    def taps(self, models: ModelPair) -> tuple[Tap, Tap, bool]:
        """Student's tap, teacher's tap, and whether corners are aligned."""
        head = models.student.decode_head
        align_corners = head is not None and head.align_corners
        ours, theirs = self.tap, self.teacher_tap or self.tap
        student = models.student.at(ours) if ours is not None else _feature(models.student)
        teacher = models.teacher.at(theirs) if theirs is not None else _feature(models.teacher)
        return student, teacher, align_corners


@dataclasses.dataclass
class Holistic(Method):
    """A discriminator that tells the teacher's class maps from the student's, Liu et al., CVPR 2019.

    Student and discriminator are trained in turns: one step each in every iteration, the student first, both on the
    logits of before the student's step. The student's are resized to the teacher's size where theirs differs.

    Attributes:
        holistic_weight: Weight of the student's term.
        discriminator_weight: Weight of the discriminator's terms.
        penalty_weight: Weight of the gradient penalty, within the discriminator's terms.
        conditional: Whether the discriminator sees the image and the class probabilities, as in the paper, or, as in
            the released code, the logits alone.
        widths: Channels of the discriminator's stages.
        adversary: ``'wgan'`` or ``'hinge'``.
        optimizer: Config of the discriminator's optimizer.
        optim_wrapper: Further keys of its optimizer wrapper; type, accumulation and clipping are those of the student's
            by default.
        param_scheduler: Its schedule, one of MMEngine's or a list.
    """

    holistic_weight: float = 0.1
    discriminator_weight: float = 0.1
    penalty_weight: float = 10.0
    conditional: bool = True
    widths: Union[list, tuple] = (64, 128, 256, 512)  # noqa: UP007
    adversary: Literal['wgan', 'hinge'] = 'wgan'
    optimizer: dict = dataclasses.field(
        default_factory=lambda: dict(type='SGD', lr=4e-4, momentum=0.9, weight_decay=5e-4)
    )
    optim_wrapper: dict = dataclasses.field(default_factory=dict)
    param_scheduler: Union[dict, list, None] = dataclasses.field(  # noqa: UP007
        default_factory=lambda: dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False)
    )

    def __post_init__(self) -> None:
        """Refuse a discriminator that cannot be built or never learns."""
        super().__post_init__()
        if not self.widths or not all(isinstance(width, int) and width > 0 for width in self.widths):
            raise DistillError(
                f'The widths of Holistic are {self.widths!r}; give a list of channels such as [64, 128, 256, 512].'
            )
        if self.active and not self.discriminator_weight:
            raise DistillError(
                'The discriminator_weight of Holistic is 0, so its discriminator never learns; set weight=0 to switch '
                'the method off.'
            )

    @property
    def active(self) -> bool:
        """Whether the student's term has a weight."""
        return self.weight != 0 and self.holistic_weight != 0

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss with a discriminator on the logits of both decode heads, and the discriminator's optimizer."""
        heads = models.decode_heads()
        heads.require_same_classes()
        parts = Parts(same_classes=True)
        loss = f'loss_{name}'
        parts.distill_losses[loss] = dict(
            type='mmkd_plugin.HolisticLoss',
            num_classes=heads.student.logits.channels,
            conditional=self.conditional,
            widths=tuple(self.widths),
            adversary=self.adversary,
            holistic_weight=self.holistic_weight,
            discriminator_weight=self.discriminator_weight,
            penalty_weight=self.penalty_weight,
            align_corners=heads.student.align_corners,
            loss_weight=self.weight,
        )
        parts.loss_forward_mappings[loss] = parts.record_both(heads.student.logits, heads.teacher.logits)
        if self.conditional:
            parts.loss_forward_mappings[loss]['image'] = parts.record_image()
        parts.adversaries[loss] = dict(
            optimizer=self.optimizer, optim_wrapper=self.optim_wrapper, param_scheduler=self.param_scheduler
        )
        return parts


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
