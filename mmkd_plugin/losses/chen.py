"""Chen et al., NIPS 2017: distillation of a detector's classes, boxes and features."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd_plugin.functional.chen import (
    FORMS,
    NORMS,
    REDUCTIONS,
    bounded_regression,
    hint_loss,
    squared_distance,
    weighted_soft_binary_cross_entropy,
    weighted_soft_cross_entropy,
)
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.averaging import average
from mmkd_plugin.utilities.checks import require_choice, require_positive
from mmkd_plugin.utilities.distributed import mean_over_ranks


@MODELS.register_module()
class ChenClassificationLoss(nn.Module):
    r"""The soft part of the paper's classification loss, :math:`\mu L_{hard} + (1 - \mu) L_{soft}`.

    The hard part is the student's own loss, which its owner weighs with mu; this module holds 1 - mu. Student and
    teacher must have seen the same proposals: the student's sampled anchors or RoIs.

    Args:
        soft_weight: 1 - mu.
        background_weight: Weight of the background's column.
        background_index: Column of the background among softmax logits; the last one in MMDetection.
        temperature: T; the paper found 1 best.
        sigmoid: Whether each column passes a sigmoid (region proposal networks, RetinaNet) instead of all a softmax.
        loss_weight: Multiplies the term.
    """

    def __init__(
        self,
        soft_weight: float = 0.5,
        background_weight: float = 1.5,
        background_index: int = -1,
        temperature: float = 1.0,
        sigmoid: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_positive('The temperature of the soft classification loss', temperature)
        self.weight = soft_weight * loss_weight
        self.background_weight = background_weight
        self.background_index = background_index
        self.temperature = temperature
        self.sigmoid = sigmoid

    def forward(
        self, student: Tensor, teacher: Tensor, weight: Tensor | None = None, avg_factor: Tensor | float | None = None
    ) -> dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Logits, ``(..., C)``.
            teacher: Logits for the same proposals, ``(..., C)``; detached.
            weight: Of each proposal, ``(...)``: 0 for those that were not sampled; None for 1.
            avg_factor: What the sum is divided by; None for the sum of the weights, averaged over ranks.

        Returns:
            A scalar under ``'soft'``.

        Raises:
            ValueError: If the logits differ in shape.
        """
        if not self.weight:
            return {}
        options = {'background_weight': self.background_weight, 'temperature': self.temperature}
        if self.sigmoid:
            losses = weighted_soft_binary_cross_entropy(student, teacher, **options)
        else:
            losses = weighted_soft_cross_entropy(student, teacher, background_index=self.background_index, **options)
        if avg_factor is None:
            avg_factor = mean_over_ranks(losses.new_full((), losses.numel()) if weight is None else weight.sum())
        return {'soft': self.weight * average(losses, weight, avg_factor)}


@MODELS.register_module()
class ChenRegressionLoss(nn.Module):
    r"""The teacher's part of the paper's regression loss, :math:`SmoothL1 + \nu L_b`.

    The smooth L1 part is the student's own loss. Only proposals with a regression target may have a weight.

    Args:
        regression_weight: Nu.
        form: ``'bounded'``, :math:`L_b`, or ``'l2'``, which it is compared with: the squared distance to the teacher.
        margin: How much better than the teacher the student must be to be left alone, in squared distance; the paper
            gives no value.
        loss_weight: Multiplies the term.
    """

    def __init__(
        self, regression_weight: float = 0.5, form: str = 'bounded', margin: float = 0.0, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        require_choice('form', form, FORMS)
        self.weight = regression_weight * loss_weight
        self.form = form
        self.margin = margin

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Regressed boxes, ``(..., 4)``.
            teacher: The teacher's for the same proposals, ``(..., 4)``; detached.
            target: The truth in the same encoding, ``(..., 4)``.
            weight: Of each proposal, ``(...)``: 1 for positives, 0 for others; None for 1.
            avg_factor: What the sum is divided by, as in the student's own regression loss; None for the number of
                proposals, positive or not, averaged over ranks.

        Returns:
            A scalar under the name of the form.

        Raises:
            ValueError: If the shapes differ.
        """
        if not self.weight:
            return {}
        if self.form == 'bounded':
            losses = bounded_regression(student, teacher, target, margin=self.margin)
        else:
            losses = squared_distance(student, teacher)
        if avg_factor is None:
            avg_factor = mean_over_ranks(losses.new_full((), losses.numel()))
        return {self.form: self.weight * average(losses, weight, avg_factor)}


@MODELS.register_module()
class ChenHintLoss(nn.Module):
    """The paper's hint loss; see :func:`~mmkd_plugin.functional.chen.hint_loss` for the formula.

    The adaptation of the student, a 1x1 convolution even where the channels agree, is a connector.

    Args:
        hint_weight: Gamma.
        norm: ``'l2'`` (squared) or ``'l1'``.
        reduction: ``'mean'`` over elements, ``'batch'`` (sum of an image, averaged over images) or ``'sum'``.
        loss_weight: Multiplies the term.
    """

    def __init__(
        self, hint_weight: float = 0.5, norm: str = 'l2', reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        require_choice('norm', norm, NORMS)
        require_choice('reduction', reduction, REDUCTIONS)
        self.weight = hint_weight * loss_weight
        self.norm = norm
        self.reduction = reduction

    def forward(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Adapted student feature, ``(N, ...)``.
            teacher: Teacher feature, ``(N, ...)``; detached.

        Returns:
            A scalar under ``'hint'``.

        Raises:
            ValueError: If the features differ in shape.
        """
        if not self.weight:
            return {}
        return {'hint': self.weight * hint_loss(student, teacher, norm=self.norm, reduction=self.reduction)}
