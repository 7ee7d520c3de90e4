"""How far the student's class probabilities are from the teacher's, pixel by pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from mmkd_plugin.functional.reductions import blocks_of_cells
from mmkd_plugin.utilities.checks import require_choice, require_same_logits
from mmkd_plugin.utilities.precision import full_precision

DIVERGENCES = ('cross_entropy', 'kl')


@full_precision
def soft_label_divergence(
    student: Tensor, teacher: Tensor, *, divergence: str = 'kl', temperature: float = 1.0
) -> Tensor:
    r"""Divergence of class probabilities :math:`P = \mathrm{softmax}_C(logits / T)` at each pixel.

    .. math:: D_{kl} = \sum_c P^t_c (\log P^t_c - \log P^s_c), \quad D_{cross\_entropy} = -\sum_c P^t_c \log P^s_c

    Both have the same gradient. There is no factor :math:`T^2`.

    Args:
        student: Logits, ``(N, C, H, W)``; gradients flow to them.
        teacher: Logits, the same shape; detached.
        divergence: ``'kl'``, which is 0 where the two agree, or ``'cross_entropy'``.
        temperature: T.

    Returns:
        ``(N, H, W)``.

    Raises:
        DistillError: If the logits differ in shape, or the divergence is unknown.

    Example:
        >>> import torch
        >>> soft_label_divergence(torch.zeros(1, 2, 1, 1), torch.tensor([[[[0.]], [[100.]]]]))
        tensor([[[0.6931]]])
    """
    require_same_logits(student, teacher)
    require_choice('divergence', divergence, DIVERGENCES)
    kind = torch.promote_types(torch.result_type(student, 1.0), torch.result_type(teacher, 1.0))
    rows = student.to(kind).flatten(2), teacher.detach().to(kind).flatten(2)
    return _Divergence.apply(*rows, divergence == 'kl', temperature).unflatten(1, student.shape[2:])


class _Divergence(torch.autograd.Function):
    """The sums of :func:`soft_label_divergence` over ``(N, C, HW)``.

    Logits in the size of the label are among the largest maps of a step. Autograd would keep such a map for every step
    of the formula; here the logits alone are kept.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, kl: bool, temperature: float) -> Tensor:
        """See the function."""
        ctx.save_for_backward(student, teacher)
        ctx.temperature = temperature
        sums = student.new_empty(student.shape[0], student.shape[2])
        for images, cells in blocks_of_cells(student):
            ours = log_softmax(student[images, :, cells] / temperature, 1)
            theirs = log_softmax(teacher[images, :, cells] / temperature, 1)
            share = theirs.exp()
            difference = theirs.sub_(ours) if kl else ours.neg_()
            sums[images, cells] = share.mul_(difference).sum(1)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The student's gradient, the difference of the probabilities; that of the gradient itself goes through it."""
        student, teacher = ctx.saved_tensors
        factor = (gradient / ctx.temperature)[:, None]
        if torch.is_grad_enabled():
            theirs = softmax(teacher / ctx.temperature, 1)
            return (softmax(student / ctx.temperature, 1) - theirs) * factor, None, None, None
        of_student = torch.empty_like(student)
        for images, cells in blocks_of_cells(student):
            found = softmax(student[images, :, cells] / ctx.temperature, 1)
            found.sub_(softmax(teacher[images, :, cells] / ctx.temperature, 1))
            of_student[images, :, cells] = found.mul_(factor[images, :, cells])
        return of_student, None, None, None
