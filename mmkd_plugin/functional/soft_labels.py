"""How far the student's class probabilities are from the teacher's, pixel by pixel."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax

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
    wanted = log_softmax(teacher.detach() / temperature, 1)
    difference = -log_softmax(student / temperature, 1)
    if divergence == 'kl':
        difference = difference + wanted
    return (wanted.exp() * difference).sum(1)
