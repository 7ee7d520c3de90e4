"""Chen et al., NIPS 2017: distillation of a detector's classes, boxes and features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, log_softmax, mse_loss

from mmkd_plugin.functional.reductions import blocks_of_rows
from mmkd_plugin.utilities.checks import require_choice, require_same_shape
from mmkd_plugin.utilities.precision import full_precision

NORMS = ('l2', 'l1')
REDUCTIONS = ('mean', 'batchmean', 'sum')


@full_precision
def weighted_soft_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    *,
    background_weight: float = 1.5,
    background_index: int = -1,
    temperature: float = 1.0,
) -> Tensor:
    r"""Cross-entropy with the teacher's class probabilities, for a softmax over classes.

    .. math:: L_r = -\sum_c w_c P^t_{rc} \log P^s_{rc}, \quad P = \mathrm{softmax}(logits / T)

    The weight belongs to the background's column, for every proposal alike, whatever its label. There is no factor
    :math:`T^2`.

    Args:
        student: Logits, ``(..., C)``; gradients flow to them.
        teacher: Logits for the same proposals, ``(..., C)``; detached.
        background_weight: w of the background; 1 for the others.
        background_index: Column of the background: the last one in MMDetection, 0 in the paper.
        temperature: T.

    Returns:
        One loss per proposal, ``(...)``.

    Raises:
        DistillError: If the logits differ in shape.

    Example:
        >>> import torch
        >>> weighted_soft_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([0.8664])
    """
    require_same_shape(student, teacher)
    classes = student.shape[-1]
    background = torch.arange(classes, device=student.device) == background_index % classes
    weight = 1 + (background_weight - 1) * background
    probability = (teacher.detach() / temperature).softmax(-1)
    return -(weight * probability * log_softmax(student / temperature, -1)).sum(-1)


@full_precision
def weighted_soft_binary_cross_entropy(
    student: Tensor, teacher: Tensor, *, background_weight: float = 1.5, temperature: float = 1.0
) -> Tensor:
    r"""Cross-entropy with the teacher's probabilities, for a sigmoid per class.

    Each column is a problem of two classes, of which "not this class" is the background:

    .. math::
        L_r = -\sum_c w (1 - p^t_{rc}) \log(1 - p^s_{rc}) + p^t_{rc} \log p^s_{rc}, \quad p = \sigma(logits / T)

    Args:
        student: Logits, ``(..., C)``, C = 1 for a region proposal network; gradients flow to them.
        teacher: Logits for the same anchors, ``(..., C)``; detached.
        background_weight: w.
        temperature: T.

    Returns:
        One loss per anchor, ``(...)``.

    Raises:
        DistillError: If the logits differ in shape.

    Example:
        >>> import torch
        >>> weighted_soft_binary_cross_entropy(torch.zeros(1, 1), torch.zeros(1, 1))
        tensor([0.8664])
    """
    require_same_shape(student, teacher)
    columns = student.shape[-1]
    rows = student.reshape(-1, columns), teacher.detach().reshape(-1, columns)
    return _BinaryCrossEntropy.apply(*rows, background_weight, temperature).view(student.shape[:-1])


@full_precision
def soft_class_count(positives: Tensor, images: Tensor, sampled: Tensor, *, min_positives: float = 10.0) -> Tensor:
    r"""What the soft classification losses of a dense head's anchors are divided by.

    .. math:: Z = \max(P, \min(m N, A))

    A detector with a focal loss divides by its positives P, since that loss is next to nothing on an easy background.
    The soft cross-entropy is not: it sums over all A anchors, so that without a floor a batch of few boxes weighs
    :math:`A / P` where another weighs a hundredth of that. The floor counts every image as if it had m positives. It
    goes with images rather than anchors, because the positives do: an object has about ten of them in a RetinaNet,
    whatever the size of the image. A head that counts all of its anchors, as an RPN does, is left alone by the minimum.

    Args:
        positives: P, what the head divides its own losses by, ``()``.
        images: N, images in the batch, ``()``.
        sampled: A, anchors that take part in the classification, ``()``.
        min_positives: m; 0 divides by P alone.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> images, sampled = torch.tensor(2.), torch.tensor(3000.)
        >>> [soft_class_count(torch.tensor(count), images, sampled).item() for count in (2., 150.)]
        [20.0, 150.0]
    """
    return torch.maximum(positives, torch.minimum(min_positives * images, sampled))


@full_precision
def bounded_regression(student: Tensor, teacher: Tensor, target: Tensor, *, margin: float = 0.0) -> Tensor:
    r"""The student's squared distance to the truth, until it is better than the teacher by a margin.

    .. math:: L_r = \|s_r - y_r\|^2 \text{ where } \|s_r - y_r\|^2 + m > \|t_r - y_r\|^2, \text{ else } 0

    The comparison is strict and made per box, over its four numbers together. The teacher only decides; neither it nor
    the comparison gets a gradient. A number without a finite truth, such as the logarithm of a box of width 0, does not
    count.

    Args:
        student: Regressed boxes, ``(..., 4)``; gradients flow to them.
        teacher: The teacher's for the same proposals, ``(..., 4)``; detached.
        target: The truth in the same encoding, ``(..., 4)``; detached.
        margin: m, in the unit of the squared distance.

    Returns:
        One loss per box, ``(...)``.

    Raises:
        DistillError: If the shapes differ.

    Example:
        >>> import torch
        >>> student, target = torch.tensor([[2., 0., 0., 0.]]), torch.zeros(1, 4)
        >>> bounded_regression(student, torch.ones(1, 4), target)
        tensor([0.])
        >>> bounded_regression(student, torch.ones(1, 4), target, margin=0.5)
        tensor([4.])
    """
    require_same_shape(student, teacher)
    known = target.isfinite()
    # Infinity would reach the gradient as NaN even where the distance is replaced by 0.
    target = torch.where(known, target.detach(), 0)
    distance = torch.where(known, (student - target) ** 2, 0).sum(-1)
    bound = torch.where(known, (teacher.detach() - target) ** 2, 0).sum(-1)
    return torch.where(distance.detach() + margin > bound, distance, 0)


@full_precision
def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""The student's squared distance to the teacher, :math:`\|s_r - t_r\|^2`, the plain loss that the bound replaces.

    Args:
        student: Regressed boxes, ``(..., 4)``; gradients flow to them.
        teacher: The teacher's for the same proposals, ``(..., 4)``; detached.

    Returns:
        One loss per box, ``(...)``.

    Raises:
        DistillError: If the shapes differ.

    Example:
        >>> import torch
        >>> squared_distance(torch.tensor([[2., 0., 0., 0.]]), torch.ones(1, 4))
        tensor([4.])
    """
    require_same_shape(student, teacher)
    return ((student - teacher.detach()) ** 2).sum(-1)


@full_precision
def hint_loss(student: Tensor, teacher: Tensor, *, norm: str = 'l2', reduction: str = 'mean') -> Tensor:
    r"""Distance between an intermediate feature of the student, behind its adaptation layer, and the teacher's.

    .. math:: L = \|F - S\|_2^2 \quad \text{or} \quad \|F - S\|_1

    The paper's formula is the sum; its weight of 0.5 makes sense only for a mean, which is the default.

    Args:
        student: Adapted student feature, ``(N, ...)``; gradients flow to it.
        teacher: Teacher feature, ``(N, ...)``; detached.
        norm: ``'l2'`` (squared) or ``'l1'``.
        reduction: Divide by the number of elements (``'mean'``), of images (``'batchmean'``) or not (``'sum'``).

    Returns:
        Scalar.

    Raises:
        DistillError: If the features differ in shape, or an option is unknown.

    Example:
        >>> import torch
        >>> hint_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0))
        tensor(4.)
    """
    require_same_shape(student, teacher)
    require_choice('norm', norm, NORMS)
    require_choice('reduction', reduction, REDUCTIONS)
    distance = mse_loss if norm == 'l2' else l1_loss
    total = distance(student, teacher.detach(), reduction='sum')
    return total / {'mean': student.numel(), 'batchmean': len(student), 'sum': 1}[reduction]


class _BinaryCrossEntropy(torch.autograd.Function):
    """The sums of :func:`weighted_soft_binary_cross_entropy` over ``(R, C)``.

    A one-stage detector has hundreds of columns in every cell, more than its features have channels. Autograd would
    keep such a map for every step of the formula; here the logits alone are kept.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, background_weight: float, temperature: float) -> Tensor:
        """See the class."""
        ctx.save_for_backward(student, teacher)
        ctx.options = background_weight, temperature
        sums = student.new_empty(len(student))
        for rows in blocks_of_rows(student):
            ours, theirs = student[rows] / temperature, teacher[rows] / temperature
            sums[rows] = _binary_cross_entropy(ours, theirs, background_weight)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The student's gradient, ``w (1 - p_t) p_s - p_t (1 - p_s)`` sorted by its own probability ``p_s``.

        That of the gradient itself goes through the same steps, one by one.
        """
        student, teacher = ctx.saved_tensors
        weight, temperature = ctx.options
        if torch.is_grad_enabled():
            theirs = torch.sigmoid(teacher / temperature)
            found = torch.sigmoid(student / temperature) * ((1 - weight) * theirs + weight) - theirs
            return found * (gradient / temperature)[:, None], None, None, None
        of_student = torch.empty_like(student)
        for rows in blocks_of_rows(student):
            theirs = torch.sigmoid(teacher[rows] / temperature)
            found = torch.sigmoid(student[rows] / temperature, out=of_student[rows])
            found.mul_((1 - weight) * theirs + weight).sub_(theirs).mul_((gradient[rows] / temperature)[:, None])
        return of_student, None, None, None


def _binary_cross_entropy(student: Tensor, teacher: Tensor, background_weight: float) -> Tensor:
    """Sum over the columns of ``w (1 - p_t) s(x) + p_t s(-x)`` with the softplus s, whose values share a logarithm."""
    # sigmoid(-x) is 1 - sigmoid(x) without the cancellation.
    background, foreground = background_weight * (-teacher).sigmoid(), teacher.sigmoid()
    shared = student.abs().neg_().exp_().log1p_()
    found = background * (student.relu() + shared)
    return found.addcmul_(foreground, (-student).relu_().add_(shared)).sum(-1)
