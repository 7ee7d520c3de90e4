"""Holistic (adversarial) distillation for segmentation, Liu et al., CVPR 2019 and TPAMI 2020."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.func import functional_call
from typing_extensions import Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.holistic import discriminator_loss, generator_loss, gradient_penalty
from mmkd_plugin.methods.arguments import require_optim_wrapper, require_optimizer, require_param_scheduler
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Parts
from mmkd_plugin.models.discriminator import WIDTHS, Discriminator, widths_for
from mmkd_plugin.probe.models import HeadPair, ModelPair
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.precision import full_precision
from mmkd_plugin.utilities.settings import Count, Factor


@MODELS.register_module()
class HolisticLoss(DistillLoss):
    """Both sides of the game: what the student minimises, and what its discriminator does in a step of its own.

    :meth:`terms` are the student's; no gradient reaches the discriminator's parameters from them.
    :meth:`discriminator_terms` are those of the discriminator; no gradient reaches the models. Calling the module gives
    the sum of both, for training loops that know nothing of the game: the optimizer of the student then trains the
    discriminator too, in the same step. Each side advances the power iteration of the discriminator and its batch
    statistics. See :mod:`mmkd_plugin.functional.holistic` for the formulas.

    Args:
        num_classes: Channels of the logits.
        conditional: Whether the discriminator sees the image and the class probabilities, as in the paper, or, as in
            the released code, the logits alone.
        widths: Channels of the discriminator's stages, each of which halves the map.
        image_channels: Channels of the image, for a conditional discriminator.
        adversary: ``'wgan'`` or ``'hinge'``, for the discriminator's side.
        discriminator_weight: Weight of the discriminator's terms.
        penalty_weight: Weight of the gradient penalty, within the discriminator's terms; 0 leaves it out.
        loss_weight: Weight of the student's term; 0 switches the method off.
    """

    def __init__(
        self,
        num_classes: int,
        conditional: bool = True,
        widths: Sequence[Count] = WIDTHS,
        image_channels: int = 3,
        adversary: Literal['wgan', 'hinge'] = 'wgan',
        discriminator_weight: Factor = 0.1,
        penalty_weight: Factor = 10.0,
        loss_weight: Factor = 0.1,
    ) -> None:
        super().__init__()
        self.discriminator = Discriminator(num_classes, conditional, widths, image_channels)
        self.adversary = adversary
        self.weight = loss_weight
        self.discriminator_weight = discriminator_weight
        self.penalty_weight = penalty_weight

    def forward(self, student: Tensor, teacher: Tensor, image: Optional[Tensor] = None) -> Tensor:
        """The terms of both sides in one scalar; arguments as in :meth:`discriminator_terms`."""
        both = [*self.terms(student, image).values(), *self.discriminator_terms(student, teacher, image).values()]
        return torch.stack(both).sum()

    @full_precision
    def terms(
        self, student: Tensor, image: Optional[Tensor] = None, teacher: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        """The student's weighted term; nothing where its weight is 0.

        Args:
            student: Logits, ``(N, C, H, W)``; gradients flow to them.
            image: The image they belong to, ``(N, 3, H', W')``; read by a conditional discriminator alone.
            teacher: The teacher's logits, which are the discriminator's business alone.

        Returns:
            A scalar under ``'holistic'``.

        Raises:
            ValueError: If the image is missing, or the class map is of other classes.
        """
        if not self.weight:
            return {}
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        scores = functional_call(self.discriminator, constants, (student, image))
        return {'holistic': self.weight * generator_loss(scores)}

    @full_precision
    def discriminator_terms(
        self, student: Tensor, teacher: Tensor, image: Optional[Tensor] = None, mix: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        """The discriminator's weighted terms, scored in the released order: teacher, student, between.

        Args:
            student: Logits, ``(N, C, H, W)``; detached.
            teacher: Logits, the same shape; detached.
            image: The image they belong to, ``(N, 3, H', W')``; read by a conditional discriminator alone.
            mix: Share of the teacher in the mixtures that the penalty looks at, ``(N, 1, 1, 1)``; random if not given.

        Returns:
            Scalars under ``'adversarial'`` and, with a penalty, ``'penalty'``.

        Raises:
            ValueError: If the image is missing, or a class map is of other classes.
        """
        if image is not None and self.discriminator.conditional:
            # Both maps, which have one size, are judged beside the same picture.
            image = self.discriminator.seen(image, teacher)
        judged_teacher = self.discriminator.joint(teacher.detach(), image)
        judged_student = self.discriminator.joint(student.detach(), image)
        teacher_scores = self.discriminator.score(judged_teacher)
        student_scores = self.discriminator.score(judged_student)
        adversarial = discriminator_loss(teacher_scores, student_scores, adversary=self.adversary)
        terms = {'adversarial': self.discriminator_weight * adversarial}
        if self.penalty_weight:
            penalty = gradient_penalty(self.discriminator.score, judged_teacher, judged_student, mix)
            terms['penalty'] = self.discriminator_weight * self.penalty_weight * penalty
        return terms


@METHODS.register_module()
class Holistic(Method):
    """A discriminator that tells the teacher's class maps from the student's, Liu et al., CVPR 2019.

    Student and discriminator are trained in turns: one step each in every iteration, the student first, both on the
    logits of before the student's step. The student's are resized to the teacher's size where theirs differs.

    Attributes:
        widths: Channels of the discriminator's stages, each of which halves the map; ``'auto'`` are the authors', 64,
            128, 256 and 512, of which as many are left out at the end as would have the class maps enlarged by a factor
            of two or more: maps of 17 to 32 cells keep three, of 9 to 16 two.
        optimizer: Config of the discriminator's optimizer.
        optim_wrapper: Further keys of its optimizer wrapper; type, accumulation and clipping are those of the student's
            by default.
        param_scheduler: Its schedule, one of MMEngine's or a list; to the end of the run unless ``end`` is given.
    """

    task = 'segmentation'
    part_of_share = 0.02
    losses = {'': HolisticLoss}
    given = ('num_classes', 'image_channels', 'widths')
    renamed = {'holistic_weight': 'loss_weight'}

    widths: Union[Literal['auto'], List[Count]] = 'auto'
    optimizer: Dict[str, Any] = dataclasses.field(
        default_factory=lambda: dict(type='SGD', lr=4e-4, momentum=0.9, weight_decay=5e-4)
    )
    optim_wrapper: Dict[str, Any] = dataclasses.field(default_factory=dict)
    param_scheduler: Union[Dict[str, Any], List[Any], None] = dataclasses.field(
        default_factory=lambda: dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False)
    )

    def check(self, where: str) -> None:
        """Refuse a discriminator that cannot be built or never learns."""
        if not self.widths:
            raise DistillError(f'"{where}.widths" is empty; give a list of channels such as [64, 128, 256, 512].')
        if self.active and not self.discriminator_weight:
            raise DistillError(
                f'"{where}.discriminator_weight" is 0, so that its discriminator never learns; set loss_weight=0 to '
                'switch the method off.'
            )
        require_optimizer(self.optimizer, f'{where}.optimizer')
        require_optim_wrapper(self.optim_wrapper, f'{where}.optim_wrapper')
        require_param_scheduler(self.param_scheduler, f'{where}.param_scheduler')

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss with a discriminator on the logits of both decode heads, and the discriminator's optimizer."""
        heads = models.decode_heads()
        heads.require_same_classes()
        parts = Parts(same_classes=True)
        loss = f'loss_{name}'
        config = self.loss_config(num_classes=heads.student.logits.channels, widths=self._widths(models, heads))
        maps = parts.record_maps(heads.student.logits, heads.teacher.logits, heads.student.align_corners)
        parts.add_loss(loss, config, **maps, **(parts.record_facts('image') if self.conditional else {}))
        parts.adversaries[loss] = dict(
            optimizer=self.optimizer, optim_wrapper=self.optim_wrapper, param_scheduler=self.param_scheduler
        )
        return parts

    def _widths(self, models: ModelPair, heads: HeadPair) -> Tuple[int, ...]:
        """The stages for class maps of this size, which is the teacher's."""
        if self.widths != 'auto':
            return tuple(self.widths)
        size = models.student.image_size
        return WIDTHS if size is None else widths_for(min(size) / heads.teacher.logits.stride)
