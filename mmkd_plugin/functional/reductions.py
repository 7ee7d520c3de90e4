"""Sums over a pair of feature maps, with a gradient that keeps no third map."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkd_plugin.utilities.sharing import is_compiling


class Reductions(NamedTuple):
    """What is left of a student's and a teacher's feature map, with D their difference and ``|S|`` the student's size.

    What was not asked for is None.

    Attributes:
        by_cell: ``(N, H, W)``, mean of ``|S|`` over the channels.
        by_channel: ``(N, C)``, mean of ``|S|`` over the cells.
        energy: ``(N, H, W)``, weighted sum of D squared over the channels.
        difference: ``(N, C)``, mean of D over the cells.
        square: ``(N, C)``, mean of D squared over the cells.
    """

    by_cell: Tensor | None
    by_channel: Tensor | None
    energy: Tensor | None
    difference: Tensor | None
    square: Tensor | None


_BY_CELL = {'by_cell', 'energy'}


def reductions(
    student: Tensor, teacher: Tensor, channel_weight: Tensor, wanted: Collection[str] = Reductions._fields
) -> Reductions:
    """Reduce two feature maps; the gradient goes to the student alone.

    Autograd would keep a map for every step of this; here the two features themselves are all that is kept, and the
    sums of both directions share scratch memory that fits the cache of a processor's core.

    Args:
        student: ``(N, C, H, W)``.
        teacher: ``(N, C, H, W)``; detached.
        channel_weight: ``(N, C)``, of each channel in ``energy``; detached.
        wanted: Names of the sums to compute.

    Returns:
        The sums.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[[[-3., 1.]]]]), torch.zeros(1, 1, 1, 2)
        >>> found = reductions(student, teacher, torch.ones(1, 1))
        >>> found.by_cell, found.by_channel, found.difference, found.square
        (tensor([[[3., 1.]]]), tensor([[2.]]), tensor([[-1.]]), tensor([[5.]]))
        >>> reductions(student, teacher, torch.ones(1, 1), wanted=['energy'])[:3]
        (None, None, tensor([[[9., 1.]]]))
    """
    shape = student.shape[2:]
    names = tuple(name for name in Reductions._fields if name in wanted)
    sums = _Reduce.apply(student.flatten(2), teacher.detach().flatten(2), channel_weight.detach(), names)
    found: dict[str, Any] = dict.fromkeys(Reductions._fields)
    found.update(zip(names, sums))
    for name in set(names) & _BY_CELL:
        found[name] = found[name].unflatten(1, shape)
    return Reductions(**found)


def squared_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two feature maps in every cell, ``(N, H, W)``; the gradient goes to the student alone.

    Args:
        student: ``(N, C, H, W)``.
        teacher: ``(N, C, H, W)``; detached.

    Returns:
        The sums over the channels.

    Example:
        >>> import torch
        >>> squared_distances(torch.tensor([[[[3.]], [[4.]]]]), torch.zeros(1, 2, 1, 1))
        tensor([[[25.]]])
    """
    found = reductions(student, teacher, student.new_ones(student.shape[:2]), wanted=('energy',)).energy
    assert found is not None
    return found


@torch.no_grad()
def sizes(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Mean size of a feature's values over the channels, ``(N, H, W)``, and over the cells, ``(N, C)``; no gradient."""
    flat = feature.flatten(2)
    by_cell, by_channel = flat.new_zeros(flat.shape[::2]), flat.new_empty(flat.shape[:2])
    scratch = _Scratch(flat)
    for images, channels in blocks(flat):
        part = torch.abs(flat[images, channels], out=scratch.like(flat[images, channels]))
        by_cell[images] += part.sum(1)
        by_channel[images, channels] = part.mean(2)
    return (by_cell / flat.shape[1]).unflatten(1, feature.shape[2:]), by_channel


BLOCK = 2**18
"""Values of a map that each core of a processor takes at a time: 256 KiB in float32, of which a few fit its cache."""


def blocks(feature: Tensor) -> list[tuple[slice, slice]]:
    """Images and channels of a map ``(N, C, HW)`` that are gone through together.

    A processor reads a map from its cache for all but the first of several steps if it takes them on a part at a time.
    Other devices have the whole at once, and so has a compiler, which joins the steps itself.
    """
    images, channels, cells = feature.shape
    everything = [(slice(None), slice(None))]
    if is_compiling() or feature.device.type != 'cpu':
        return everything
    limit = BLOCK * torch.get_num_threads()
    if feature.numel() <= limit:
        return everything
    if channels * cells <= limit:
        step = limit // max(channels * cells, 1)
        return [(slice(first, first + step), slice(None)) for first in range(0, images, step)]
    step = max(limit // cells, 1)
    return [
        (slice(image, image + 1), slice(first, first + step))
        for image in range(images)
        for first in range(0, channels, step)
    ]


def blocks_of_cells(feature: Tensor) -> list[tuple[slice, slice]]:
    """Images and cells of a map ``(N, C, HW)`` gone through together, with all channels; see :func:`blocks`."""
    return blocks(feature.transpose(1, 2))


def blocks_of_rows(matrix: Tensor) -> list[slice]:
    """Rows of a matrix ``(R, C)`` that are gone through together; see :func:`blocks`."""
    return [images for images, _ in blocks(matrix[:, None])]


class _Scratch:
    """Memory that one block after the other is computed in.

    Args:
        feature: The map whose blocks are meant, ``(N, C, HW)``.
    """

    def __init__(self, feature: Tensor) -> None:
        self._memory = feature.new_empty(max(feature[block].numel() for block in blocks(feature)))

    def like(self, part: Tensor) -> Tensor:
        """The memory in the shape of a block."""
        return self._memory[: part.numel()].view(part.shape)


class _Reduce(torch.autograd.Function):
    """The sums of :func:`reductions` on flattened maps, ``(N, C, HW)``."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, channel_weight: Tensor, wanted: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        """See :func:`reductions`."""
        ctx.save_for_backward(student, teacher, channel_weight)
        ctx.set_materialize_grads(False)
        ctx.wanted = wanted
        images, channels, cells = student.shape
        sums = {name: student.new_zeros(images, cells if name in _BY_CELL else channels) for name in wanted}
        scratch = _Scratch(student)
        for block in blocks(student):
            _sum_block(sums, student[block], teacher[block], channel_weight[block], block, scratch)
        if 'by_cell' in sums:
            sums['by_cell'] /= channels
        return tuple(sums[name] for name in wanted)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        """The student's gradient; that of the gradient itself goes through the same steps, one by one."""
        student, teacher, weight = ctx.saved_tensors
        found = dict.fromkeys(Reductions._fields)
        found.update(zip(ctx.wanted, gradients))
        channels, cells = student.shape[1:]
        scales = {'by_cell': channels, 'by_channel': cells, 'difference': cells, 'square': cells / 2, 'energy': 1 / 2}
        of = {
            name: value.unsqueeze(1 if name in _BY_CELL else 2) / scales[name]
            for name, value in found.items()
            if value is not None
        }
        if not of:
            return None, None, None, None
        if torch.is_grad_enabled():
            return _gradient_plainly(student, teacher, weight, of), None, None, None
        gradient = torch.empty_like(student, memory_format=torch.contiguous_format)
        scratch = _Scratch(student)
        for images, channel in blocks(student):
            _gradient_of_block(
                gradient[images, channel],
                student[images, channel],
                teacher[images, channel],
                weight[images, channel],
                {key: each[images] if key in _BY_CELL else each[images, channel] for key, each in of.items()},
                scratch,
            )
        return gradient, None, None, None


def _sum_block(
    sums: dict[str, Tensor],
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    block: tuple[slice, slice],
    scratch: _Scratch,
) -> None:
    """Add what a block of the maps is to the sums over channels, and note its means over the cells."""
    images, _ = block
    part = scratch.like(student)
    if 'by_cell' in sums or 'by_channel' in sums:
        torch.abs(student, out=part)
        if 'by_cell' in sums:
            sums['by_cell'][images] += part.sum(1)
        if 'by_channel' in sums:
            sums['by_channel'][block] = part.mean(2)
    if not {'energy', 'difference', 'square'} & set(sums):
        return
    torch.sub(student, teacher, out=part)
    if 'difference' in sums:
        sums['difference'][block] = part.mean(2)
    if 'energy' in sums or 'square' in sums:
        part.square_()
        if 'energy' in sums:
            sums['energy'][images] += _dot(weight, part)
        if 'square' in sums:
            sums['square'][block] = part.mean(2)


def _gradient_plainly(student: Tensor, teacher: Tensor, weight: Tensor, of: dict[str, Tensor]) -> Tensor:
    """The student's gradient in steps that have a gradient themselves."""
    gradient = torch.zeros_like(student)
    if 'difference' in of:
        gradient = gradient + of['difference']
    if 'energy' in of:
        gradient = gradient + (student - teacher) * weight[..., None] * of['energy']
    if 'square' in of:
        gradient = gradient + (student - teacher) * of['square']
    for name in ('by_cell', 'by_channel'):
        if name in of:
            gradient = gradient + student.sign() * of[name]
    return gradient


def _gradient_of_block(
    gradient: Tensor, student: Tensor, teacher: Tensor, weight: Tensor, of: dict[str, Tensor], scratch: _Scratch
) -> None:
    """Write the student's gradient in one block."""
    part = scratch.like(student)
    if 'energy' in of or 'square' in of:
        if 'energy' not in of:
            gradient.copy_(of['square'].expand_as(gradient))
        else:
            torch.mul(weight[..., None], of['energy'], out=gradient)
            if 'square' in of:
                gradient += of['square']
        gradient *= torch.sub(student, teacher, out=part)
    else:
        gradient.zero_()
    sizes_of = [of[name] for name in ('by_cell', 'by_channel') if name in of]
    if sizes_of:
        torch.sign(student, out=part)
        for size in sizes_of:
            gradient.addcmul_(part, size)
    if 'difference' in of:
        gradient += of['difference']


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
        return _products(feature, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients of the feature and the key."""
        feature, key, bias, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The saved weight has no history.
            weight = _dot(key.expand(len(feature), -1), feature).softmax(1)
        of_weight = _dot(gradient, feature)
        of_product = weight * (of_weight - (weight * of_weight).sum(1, keepdim=True))
        of_key = _products(feature, of_product).sum(0)
        of_feature = None
        if ctx.needs_input_grad[0]:
            of_feature = _outer_sum(gradient, weight, key.expand_as(gradient), of_product)
        return of_feature, of_key, torch.zeros_like(bias)


def _outer_sum(first: Tensor, of_first: Tensor, second: Tensor, of_second: Tensor) -> Tensor:
    """Sum of two products of vectors ``(N, C)`` with vectors ``(N, HW)``: ``(N, C, HW)``."""
    first, of_first, second, of_second = first[..., None], of_first[:, None], second[..., None], of_second[:, None]
    if torch.is_grad_enabled():
        return first * of_first + second * of_second
    found = first.new_empty(*first.shape[:2], of_first.shape[2])
    for images, channels in blocks(found):
        part = torch.mul(first[images, channels], of_first[images], out=found[images, channels])
        part.addcmul_(second[images, channels], of_second[images])
    return found


def _dot(vectors: Tensor, feature: Tensor) -> Tensor:
    """Product of a vector ``(N, C)`` with every cell of ``(N, C, HW)``: ``(N, HW)``."""
    return _products(feature.transpose(1, 2), vectors)


def _products(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Product of each image's matrix ``(N, A, B)`` with its vector ``(N, B)``: ``(N, A)``."""
    if matrices.device.type != 'cpu':
        return torch.bmm(matrices, vectors[..., None])[..., 0]
    # A processor's batched product takes ten times as long where one side is a vector.
    return torch.stack([matrix.mv(vector) for matrix, vector in zip(matrices, vectors)])
