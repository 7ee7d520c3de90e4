"""Holistic (adversarial) distillation for segmentation, Liu et al., CVPR 2019 and TPAMI 2020."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

from mmkd_plugin.functional.holistic import ADVERSARIES, discriminator_loss, generator_loss, gradient_penalty
from mmkd_plugin.models.discriminator import Discriminator
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.checks import require_choice
from mmkd_plugin.utilities.precision import full_precision
from mmkd_plugin.utilities.resize import resize_map


@MODELS.register_module()
class HolisticLoss(nn.Module):
    """Both sides of the game: what the student minimises, and what its discriminator does in a step of its own.

    :meth:`forward` is the student's term; no gradient reaches the discriminator's parameters from it.
    :meth:`discriminator_terms` are those of the discriminator; no gradient reaches the models. Both advance the power
    iteration of the discriminator and its batch statistics. See :mod:`mmkd_plugin.functional.holistic` for the
    formulas.

    Args:
        num_classes: Channels of the logits.
        conditional: Whether the discriminator sees the image and the class probabilities, or the logits alone.
        widths: Channels of the discriminator's stages.
        image_channels: Channels of the image, for a conditional discriminator.
        adversary: ``'wgan'`` or ``'hinge'``, for the discriminator's side.
        holistic_weight: Of the student's term.
        discriminator_weight: Of the discriminator's terms.
        penalty_weight: Of the gradient penalty, within the discriminator's terms; 0 leaves it out.
        align_corners: Where the maps differ in size, the student's is resized to the teacher's, with or without
            aligned corners; None leaves it.
        loss_weight: Multiplies the student's term.
    """

    def __init__(
        self,
        num_classes: int,
        conditional: bool = True,
        widths: Sequence[int] = (64, 128, 256, 512),
        image_channels: int = 3,
        adversary: str = 'wgan',
        holistic_weight: float = 0.1,
        discriminator_weight: float = 0.1,
        penalty_weight: float = 10.0,
        align_corners: bool | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice('adversary', adversary, ADVERSARIES)
        self.discriminator = Discriminator(num_classes, conditional, widths, image_channels)
        self.adversary = adversary
        self.weight = holistic_weight * loss_weight
        self.discriminator_weight = discriminator_weight
        self.penalty_weight = penalty_weight
        self.align_corners = align_corners

    @full_precision
    def forward(self, student: Tensor, image: Tensor | None = None, teacher: Tensor | None = None) -> dict[str, Tensor]:
        """The student's weighted term; nothing where its weight is 0.

        Args:
            student: Logits, ``(N, C, H, W)``; gradients flow to them.
            image: The image they belong to, ``(N, 3, H', W')``; read by a conditional discriminator alone.
            teacher: Logits whose size the student's are resized to; nothing else of them is read.

        Returns:
            A scalar under ``'holistic'``.

        Raises:
            ValueError: If the image is missing, or the class map is of other classes.
        """
        if not self.weight:
            return {}
        if teacher is not None:
            student = self._fit(student, teacher)
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        scores = functional_call(self.discriminator, constants, (student, image))
        return {'holistic': self.weight * generator_loss(scores)}

    @full_precision
    def discriminator_terms(
        self, student: Tensor, teacher: Tensor, image: Tensor | None = None, mix: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The discriminator's weighted terms, scored in the released order: teacher, student, between.

        Args:
            student: Logits, ``(N, C, H, W)``; detached.
            teacher: Logits, the same shape unless the student's are resized; detached.
            image: The image they belong to, ``(N, 3, H', W')``; read by a conditional discriminator alone.
            mix: Share of the teacher in the mixtures that the penalty looks at, ``(N, 1, 1, 1)``; random if not given.

        Returns:
            Scalars under ``'adversarial'`` and, with a penalty, ``'penalty'``.

        Raises:
            ValueError: If the image is missing, or a class map is of other classes.
        """
        student = self._fit(student, teacher)
        theirs = self.discriminator.joint(teacher.detach(), image)
        ours = self.discriminator.joint(student.detach(), image)
        teacher_scores = self.discriminator.score(theirs)
        student_scores = self.discriminator.score(ours)
        adversarial = discriminator_loss(teacher_scores, student_scores, adversary=self.adversary)
        terms = {'adversarial': self.discriminator_weight * adversarial}
        if self.penalty_weight:
            penalty = gradient_penalty(self.discriminator.score, theirs, ours, mix)
            terms['penalty'] = self.discriminator_weight * self.penalty_weight * penalty
        return terms

    def _fit(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The student's map in the teacher's size."""
        if self.align_corners is None:
            return student
        return resize_map(student, (teacher.shape[2], teacher.shape[3]), align_corners=self.align_corners)
