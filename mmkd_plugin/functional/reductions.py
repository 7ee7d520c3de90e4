"""Sums over a pair of feature maps, with a gradient that keeps no third map."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Reductions(NamedTuple):
    """What is left of a student's and a teacher's feature map, with D their difference and ``|S|`` the student's size.

    Attributes:
        by_cell: ``(N, H, W)``, mean of ``|S|`` over the channels.
        by_channel: ``(N, C)``, mean of ``|S|`` over the cells.
        energy: ``(N, H, W)``, weighted sum of D squared over the channels.
        difference: ``(N, C)``, mean of D over the cells.
        square: ``(N, C)``, mean of D squared over the cells.
    """

    by_cell: Tensor
    by_channel: Tensor
    energy: Tensor
    difference: Tensor
    square: Tensor


def reductions(student: Tensor, teacher: Tensor, channel_weight: Tensor) -> Reductions:
    """Reduce two feature maps; the gradient goes to the student alone.

    Autograd would keep a map for every step of this; here the two features themselves are all that is kept, and the
    sums of both directions share one map of scratch memory.

    Args:
        student: ``(N, C, H, W)``.
        teacher: ``(N, C, H, W)``; detached.
        channel_weight: ``(N, C)``, of each channel in ``energy``; detached.

    Returns:
        The sums.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[[[-3., 1.]]]]), torch.zeros(1, 1, 1, 2)
        >>> found = reductions(student, teacher, torch.ones(1, 1))
        >>> found.by_cell, found.by_channel, found.difference, found.square
        (tensor([[[3., 1.]]]), tensor([[2.]]), tensor([[-1.]]), tensor([[5.]]))
    """
    shape = student.shape[2:]
    by_cell, by_channel, energy, difference, square = _Reduce.apply(
        student.flatten(2), teacher.detach().flatten(2), channel_weight.detach()
    )
    return Reductions(by_cell.unflatten(1, shape), by_channel, energy.unflatten(1, shape), difference, square)


def sizes(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Mean size of a feature's values over the channels and over the cells, ``(N, H, W)`` and ``(N, C)``."""
    size = feature.abs()
    return size.mean(1), size.mean((2, 3))


class _Reduce(torch.autograd.Function):
    """The sums of :func:`reductions` on flattened maps, ``(N, C, HW)``."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, channel_weight: Tensor) -> tuple[Tensor, ...]:
        """See :func:`reductions`."""
        ctx.save_for_backward(student, teacher, channel_weight)
        scratch = student.abs()
        by_cell, by_channel = scratch.mean(1), scratch.mean(2)
        torch.sub(student, teacher, out=scratch)
        difference = scratch.mean(2)
        scratch.square_()
        energy = _dot(channel_weight, scratch)
        return by_cell, by_channel, energy, difference, scratch.mean(2)

    @staticmethod
    def backward(
        ctx: Any, by_cell: Tensor, by_channel: Tensor, energy: Tensor, difference: Tensor, square: Tensor
    ) -> tuple[Tensor, None, None]:
        """The student's gradient; that of the gradient itself goes through the same steps, one by one."""
        student, teacher, weight = ctx.saved_tensors
        channels, cells = student.shape[1:]
        of_size = by_channel[..., None] / cells, by_cell[:, None] / channels
        of_square = 2 * square[..., None] / cells
        of_difference = difference[..., None] / cells
        if torch.is_grad_enabled():
            gradient = (student - teacher) * (of_square + 2 * weight[..., None] * energy[:, None])
            return gradient + student.sign() * (of_size[0] + of_size[1]) + of_difference, None, None
        gradient = torch.baddbmm(of_square, weight[..., None], energy[:, None], alpha=2)
        scratch = torch.sub(student, teacher)
        gradient.mul_(scratch)
        torch.sign(student, out=scratch)
        gradient.addcmul_(scratch, of_size[0]).addcmul_(scratch, of_size[1]).add_(of_difference)
        return gradient, None, None


def attention_pool(feature: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """Mean of a feature over its cells, each weighed by the softmax of its product with a key.

    Args:
        feature: ``(N, C, H, W)``.
        key: ``(C,)``.
        bias: ``(1,)``, added to every product, which changes nothing; its gradient is 0.

    Returns:
        ``(N, C)``.

    Example:
        >>> import torch
        >>> attention_pool(torch.tensor([[[[1., 3.]]]]), torch.zeros(1), torch.zeros(1))
        tensor([[2.]])
    """
    return _Pool.apply(feature.flatten(2), key, bias)


class _Pool(torch.autograd.Function):
    """:func:`attention_pool` of a flattened map, ``(N, C, HW)``."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, key: Tensor, bias: Tensor) -> Tensor:
        """See :func:`attention_pool`."""
        weight = _dot(key.expand(len(feature), -1), feature).softmax(1)
        ctx.save_for_backward(feature, key, bias, weight)
        return torch.bmm(feature, weight[..., None])[..., 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients of the feature and the key."""
        feature, key, bias, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The saved weight has no history.
            weight = _dot(key.expand(len(feature), -1), feature).softmax(1)
        of_weight = _dot(gradient, feature)
        of_product = weight * (of_weight - (weight * of_weight).sum(1, keepdim=True))
        of_feature = None
        if ctx.needs_input_grad[0]:
            rows = torch.stack([gradient, key.expand_as(gradient)], 2)
            of_feature = torch.bmm(rows, torch.stack([weight, of_product], 1))
        return of_feature, torch.bmm(feature, of_product[..., None])[..., 0].sum(0), torch.zeros_like(bias)


def _dot(vectors: Tensor, feature: Tensor) -> Tensor:
    """Product of a vector ``(N, C)`` with every cell of ``(N, C, HW)``: ``(N, HW)``."""
    return torch.bmm(vectors[:, None], feature)[:, 0]
