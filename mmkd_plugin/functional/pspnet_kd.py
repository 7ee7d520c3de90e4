"""Distillation of PSPNet's logits and of its auxiliary head's, after the public PSPNet-knowledge-distillation code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from mmkd_plugin.functional.reductions import blocks
from mmkd_plugin.functional.soft_labels import soft_label_divergence
from mmkd_plugin.utilities.averaging import average
from mmkd_plugin.utilities.checks import require_same_logits
from mmkd_plugin.utilities.precision import full_precision


def logits_kl_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.9,
    valid: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    r"""Kullback-Leibler divergence of the two models' class probabilities, averaged over pixels.

    .. math:: L = \frac{T^2}{Z} \sum_{n,i,j} v_{nij} \sum_c P^t_c (\log P^t_c - \log P^s_c), \quad
        P = \mathrm{softmax}_C(logits / T)

    The released code averages over classes too and multiplies by 19, the number of classes of another data set; with 21
    classes it is 19/21 of this loss.

    Args:
        student: Logits, ``(N, C, H, W)``; gradients flow to them.
        teacher: Logits, the same shape; detached.
        temperature: T.
        valid: v, ``(N, H, W)`` bool, False where a pixel does not count; None for all pixels.
        count: Z, a scalar, where it is not the number of pixels that count. A count of 0 is taken as 1.

    Returns:
        Scalar.

    Raises:
        DistillError: If the logits differ in shape.

    Example:
        >>> import torch
        >>> logits_kl_loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[[0.]], [[100.]]]]), temperature=1.0)
        tensor(0.6931)
    """
    pixels = temperature**2 * soft_label_divergence(student, teacher, temperature=temperature)
    if count is None:
        return average(pixels, valid, pixels.numel() if valid is None else valid.sum())
    return average(pixels, valid, count)


@full_precision
def aux_smooth_l1_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Smooth L1 distance of the auxiliary heads' class maps, averaged over all elements.

    .. math:: L = \frac{1}{NCHW} \sum h(s - t), \quad h(x) = x^2 / 2 \text{ where } |x| < 1, \text{ else } |x| - 1/2

    Args:
        student: Logits of the auxiliary head, ``(N, C, H, W)``; gradients flow to them.
        teacher: The same of the teacher; detached.

    Returns:
        Scalar.

    Raises:
        DistillError: If the logits differ in shape.

    Example:
        >>> import torch
        >>> aux_smooth_l1_loss(torch.tensor([[[[3.]], [[0.5]]]]), torch.zeros(1, 2, 1, 1))
        tensor(1.3125)
    """
    require_same_logits(student, teacher)
    return _SmoothL1.apply(student.flatten(2), teacher.detach().flatten(2))


class _SmoothL1(torch.autograd.Function):
    """The mean of :func:`aux_smooth_l1_loss` over ``(N, C, HW)``, without a map of the single distances."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """See the class."""
        ctx.save_for_backward(student, teacher)
        parts = [smooth_l1_loss(student[part], teacher[part], reduction='sum') for part in blocks(student)]
        return torch.stack(parts).sum() / student.numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The student's gradient, the differences cut off at 1; that of the gradient itself goes through them."""
        student, teacher = ctx.saved_tensors
        factor = gradient / student.numel()
        if torch.is_grad_enabled():
            return (student - teacher).clamp(-1, 1) * factor, None
        of_student = torch.empty_like(student)
        for part in blocks(student):
            of_student[part] = (student[part] - teacher[part]).clamp_(-1, 1).mul_(factor)
        return of_student, None
