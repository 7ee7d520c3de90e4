"""Wasserstein training of a discriminator with gradient penalty, Gulrajani et al., NIPS 2017."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmkd_plugin.utilities.checks import require_choice
from mmkd_plugin.utilities.precision import full_precision

ADVERSARIES = ('wgan', 'hinge')


@full_precision
def generator_loss(student_scores: Tensor) -> Tensor:
    r"""What the student minimises: :math:`-\frac{1}{N} \sum_n D(S_n)`.

    Args:
        student_scores: The discriminator's score of each student output, ``(N,)``.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> generator_loss(torch.tensor([1., 2.]))
        tensor(-1.5000)
    """
    return -student_scores.mean()


@full_precision
def discriminator_loss(teacher_scores: Tensor, student_scores: Tensor, *, adversary: str = 'wgan') -> Tensor:
    r"""What the discriminator minimises, besides the gradient penalty.

    .. math::
        L_{wgan} &= -\overline{D(T)} + \overline{D(S)} \\
        L_{hinge} &= \overline{\max(0, 1 - D(T))} + \overline{\max(0, 1 + D(S))}

    Args:
        teacher_scores: Score of each teacher output, ``(N,)``.
        student_scores: Score of each student output, ``(N,)``.
        adversary: ``'wgan'`` or ``'hinge'``.

    Returns:
        Scalar.

    Raises:
        DistillError: If the adversary is unknown.

    Example:
        >>> import torch
        >>> scores = torch.tensor([3.]), torch.tensor([1.])
        >>> discriminator_loss(*scores), discriminator_loss(*scores, adversary='hinge')
        (tensor(-2.), tensor(2.))
    """
    require_choice('adversary', adversary, ADVERSARIES)
    if adversary == 'hinge':
        return (1 - teacher_scores).relu().mean() + (1 + student_scores).relu().mean()
    return student_scores.mean() - teacher_scores.mean()


@full_precision
def gradient_penalty(
    score: Callable[[Tensor], Tensor], teacher: Tensor, student: Tensor, mix: Tensor | None = None
) -> Tensor:
    r"""How far the discriminator's gradient is from unit length between the two distributions.

    .. math:: P = \frac{1}{N} \sum_n (\|\nabla_x D(x)_n\|_2 - 1)^2, \quad x = a T + (1 - a) S, \quad a \sim U[0, 1)

    With a normalisation over the batch inside D, the gradient of one image contains those of the others' scores.

    Args:
        score: D, from ``(N, C, H, W)`` to ``(N,)``; the penalty is differentiable in its parameters.
        teacher: Input of D made of the teacher's output, ``(N, C, H, W)``; detached.
        student: The same of the student; detached.
        mix: a, ``(N, 1, 1, 1)``; drawn at random if not given.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> gradient_penalty(lambda x: 3 * x[:, 0, 0, 0], torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
        tensor(4.)
    """
    if mix is None:
        mix = torch.rand(len(teacher), 1, 1, 1, device=teacher.device, dtype=teacher.dtype)
    with torch.enable_grad():
        mixed = (mix * teacher.detach() + (1 - mix) * student.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(score(mixed).sum(), mixed, create_graph=True)
        return ((torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1) ** 2).mean()
