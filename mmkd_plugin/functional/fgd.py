"""Focal and global distillation (FGD), Yang et al., CVPR 2022."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmkd_plugin.functional.reductions import reductions, sizes
from mmkd_plugin.utilities.checks import require_same_shape
from mmkd_plugin.utilities.precision import full_precision
from mmkd_plugin.utilities.sharing import shared

_MAX_PAINTED = 2**22
"""Weights that are painted at once, those of every box on every cell: 16 MiB in float32."""


class FGDTerms(NamedTuple):
    """The unweighted terms of one pyramid level, each a scalar; None where it was not asked for."""

    foreground: Tensor | None
    background: Tensor | None
    attention: Tensor | None
    relation: Tensor | None


@full_precision
def spatial_attention(feature: Tensor, temperature: float = 0.5) -> Tensor:
    r"""How much each position of a feature map stands out.

    .. math:: A_S = HW \cdot \mathrm{softmax}_{HW}\Big(\frac{1}{C\,T} \sum_c |F_c|\Big)

    Args:
        feature: ``(N, C, H, W)``.
        temperature: T; the smaller, the more the attention is concentrated.

    Returns:
        ``(N, H, W)``; each image sums to ``H * W``.

    Example:
        >>> import torch
        >>> spatial_attention(torch.zeros(1, 2, 1, 3))
        tensor([[[1., 1., 1.]]])
    """
    return _share(feature.abs().mean(1), temperature)


@full_precision
def channel_attention(feature: Tensor, temperature: float = 0.5) -> Tensor:
    r"""How much each channel of a feature map stands out.

    .. math:: A_C = C \cdot \mathrm{softmax}_C\Big(\frac{1}{HW\,T} \sum_{ij} |F_{ij}|\Big)

    Args:
        feature: ``(N, C, H, W)``.
        temperature: T; the smaller, the more the attention is concentrated.

    Returns:
        ``(N, C)``; each image sums to ``C``.

    Example:
        >>> import torch
        >>> channel_attention(torch.zeros(1, 2, 1, 3))
        tensor([[1., 1.]])
    """
    return _share(feature.abs().mean((2, 3)), temperature)


@shared
@torch.no_grad()
@full_precision
def box_masks(
    boxes: Tensor,
    valid: Tensor,
    image_shapes: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    max_painted: int = _MAX_PAINTED,
) -> tuple[Tensor, Tensor]:
    r"""Weight of each cell of a feature map as foreground and as background.

    .. math:: M^{fg}_{nij} = \max_{b \ni (i, j)} \frac{1}{h_b w_b}, \quad
        M^{bg}_{nij} = \frac{[M^{fg}_{nij} = 0]}{\sum_{kl} [M^{fg}_{nkl} = 0]}

    A box covers the cells from the floor of its left and top edge to the ceiling of its right and bottom edge, both
    inclusive, so that a box within one cell covers 2 x 2. Each of them weighs 1 / (number of cells covered), counted
    before the right and bottom border of the map cut the box; where boxes overlap, the heavier (smaller) one counts.
    The cells that no box covers share the weight 1.

    Edges are computed as the released code does, ``edge / image size * map size`` in the boxes' own precision: with
    float32, 120 of 800 pixels lie at 15.000001 of 100 cells, and the ceiling is 16. The image size is the one before
    padding, although the map covers the padded batch. A box that leaves the image on the left or at the top starts in
    the first cell, where the released code would paint nothing or cells of the opposite side.

    Args:
        boxes: ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input; B may be 0.
        valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
        image_shapes: ``(N, 2)``, height and width of each image before padding, in pixels.
        size: Height and width of the feature map.
        dtype: Of the masks. Foreground weights are rounded to float32 in any case, as the released code does.
        max_painted: How many cells of boxes to paint at once, so that memory does not grow with the number of boxes.

    Returns:
        Foreground and background, ``(N, H, W)`` each. An image without boxes has the foreground 0 and the background
        ``1 / (H * W)``; the background is 0 where boxes cover the whole map.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0., 0., 8., 8.]]])
        >>> masks = box_masks(box, torch.tensor([[True]]), torch.tensor([[16, 32]]), (2, 4))
        >>> masks[0]
        tensor([[[0.2500, 0.2500, 0.0000, 0.0000],
                 [0.2500, 0.2500, 0.0000, 0.0000]]])
        >>> masks[1]
        tensor([[[0.0000, 0.0000, 0.2500, 0.2500],
                 [0.0000, 0.0000, 0.2500, 0.2500]]])
    """
    height, width = size
    if boxes.shape[1]:
        image_height, image_width = image_shapes.to(boxes)[:, None].unbind(-1)
        x1, y1, x2, y2 = boxes.unbind(-1)
        left, right = (x1 / image_width * width).floor().clamp(min=0), (x2 / image_width * width).ceil()
        top, bottom = (y1 / image_height * height).floor().clamp(min=0), (y2 / image_height * height).ceil()
        # A box wholly beyond the left or upper border would paint the first cells, since a ceiling above -1 is 0.
        outside = ((x1 < 0) & (x2 <= 0)) | ((y1 < 0) & (y2 <= 0)) | (x2 < x1) | (y2 < y1)
        # A box beyond the border covers fewer than one cell; it paints nothing, but must not divide by zero.
        rows_covered = (bottom + 1 - top).clamp(min=1).float()
        columns_covered = (right + 1 - left).clamp(min=1).float()
        weight = torch.where(valid & ~outside, 1 / rows_covered / columns_covered, 0)
        row = torch.arange(height, device=boxes.device, dtype=boxes.dtype)
        column = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
        in_rows = (row >= top[..., None]) & (row <= bottom[..., None])
        in_columns = (column >= left[..., None]) & (column <= right[..., None])
        rows = weight[..., None] * in_rows
        step = max(max_painted // (len(boxes) * height * width), 1)
        painted = [
            (of_rows[..., None] * of_columns[..., None, :]).amax(1)
            for of_rows, of_columns in zip(rows.split(step, 1), in_columns.split(step, 1))
        ]
        foreground = functools.reduce(torch.maximum, painted).to(dtype)
    else:
        foreground = boxes.new_zeros((boxes.shape[0], height, width), dtype=dtype)
    background = (foreground == 0).to(dtype)
    return foreground, background / background.sum((1, 2), keepdim=True).clamp(min=1)


def _share(size: Tensor, temperature: float) -> Tensor:
    """How much each of an image's mean sizes stands out, 1 on average; ``(N, H, W)`` or ``(N, C)`` as they come."""
    flat = size.flatten(1)
    return flat.shape[1] * (flat / temperature).softmax(1).view_as(size)


@full_precision
def fgd_loss(
    student: Tensor,
    teacher: Tensor,
    boxes: Tensor,
    valid: Tensor,
    image_shapes: Tensor,
    student_context: Callable[[Tensor], Tensor] | None = None,
    teacher_context: Callable[[Tensor], Tensor] | None = None,
    *,
    temperature: float = 0.5,
    terms: Collection[str] = FGDTerms._fields,
    together: bool = False,
    attend: Literal['both', 'spatial', 'channel', 'none'] = 'both',
) -> FGDTerms:
    r"""The unweighted terms of one pyramid level of FGD, as the released code computes them.

    With S the student's and F the teacher's feature, :math:`A_S, A_C` the spatial and channel attention of each,
    and G the two context blocks, each of which adds a value of its own to every channel:

    .. math::
        L_{foreground} &= \tfrac{1}{N} \sum M^{fg} A_S^F A_C^F (S - F)^2 \\
        L_{background} &= \tfrac{1}{N} \sum M^{bg} A_S^F A_C^F (S - F)^2 \\
        L_{attention} &= \tfrac{1}{N} \sum |A_S^S - A_S^F| + \tfrac{1}{N} \sum |A_C^S - A_C^F| \\
        L_{relation} &= \tfrac{1}{N} \sum (S + G_s(S) - F - G_t(F))^2

    Sums run over images, channels and positions; N is the number of images. Where paper and released code differ, the
    code is followed: masks count the cells of the map that a box covers, not the area of the box. See
    :func:`box_masks` for M.

    Args:
        student: Adapted student feature, ``(N, C, H, W)``; gradients flow to it.
        teacher: Teacher feature, ``(N, C, H, W)``; detached.
        boxes: Padded ground truth, ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input; B may be 0.
        valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
        image_shapes: ``(N, 2)``, height and width of each image before padding, in pixels.
        student_context: What the context block of the student's side adds to its feature, ``(N, C, H, W)`` to
            ``(N, C, 1, 1)``; None adds nothing.
        teacher_context: The same of the teacher's side; trained like the student's.
        temperature: T of both attentions.
        terms: Names of the terms to compute.
        together: Whether foreground and background are not told apart: all cells weigh ``1 / (H * W)`` then, as the
            background's, and the foreground's term is 0. The paper's ablation of the areas.
        attend: Which attentions weigh the cells and are compared; the paper's ablation of the attentions.

    Returns:
        The terms.

    Raises:
        DistillError: If the two features differ in shape.

    Example:
        >>> import torch
        >>> student, teacher = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
        >>> box, valid = torch.tensor([[[0., 0., 1., 4.]]]), torch.tensor([[True]])
        >>> fgd_loss(student, teacher, box, valid, torch.tensor([[4, 8]]))
        FGDTerms(foreground=tensor(0.5000), background=tensor(0.), attention=tensor(0.), relation=tensor(2.))
    """
    require_same_shape(student, teacher)
    teacher = teacher.detach()
    images, channels, height, width = student.shape
    spatial, channel = attend in ('both', 'spatial'), attend in ('both', 'channel')
    apart = not together and 'foreground' in terms
    weighed = apart or 'background' in terms
    attended = 'attention' in terms
    by_cell, by_channel = teacher.new_ones(images, height, width), teacher.new_ones(images, channels)
    if (spatial or channel) and (weighed or attended):
        of_cells, of_channels = sizes(teacher)
        by_cell = _share(of_cells, temperature) if spatial else by_cell
        by_channel = _share(of_channels, temperature) if channel else by_channel
    wanted = {'by_cell': attended and spatial, 'by_channel': attended and channel, 'energy': weighed}
    wanted.update(dict.fromkeys(('difference', 'square'), 'relation' in terms))
    sums = reductions(student, teacher, by_channel, [name for name, read in wanted.items() if read])
    foreground = background = attention = relation = None
    if 'foreground' in terms:
        foreground = student.new_zeros(())
    if sums.energy is not None:
        painted = (boxes[:, :0], valid[:, :0]) if together else (boxes, valid)
        masks = box_masks(*painted, image_shapes, (height, width), dtype=teacher.dtype)
        energy = by_cell * sums.energy
        foreground = (masks[0] * energy).sum() / images if apart else foreground
        background = (masks[1] * energy).sum() / images if 'background' in terms else None
    if attended:
        attention = student.new_zeros(())
        for found, of_teacher in ((sums.by_cell, by_cell), (sums.by_channel, by_channel)):
            if found is not None:
                attention = attention + (_share(found, temperature) - of_teacher).abs().sum() / images
    if sums.difference is not None and sums.square is not None:
        added = student.new_zeros(images, channels)
        for context, feature, sign in ((student_context, student, 1), (teacher_context, teacher, -1)):
            added = added if context is None else added + sign * context(feature).flatten(1)
        # The square of D + a is that of D, plus what the value a, equal on all cells, makes of its mean.
        moved = sums.square + 2 * added * sums.difference + added**2
        relation = height * width * moved.sum() / images
    return FGDTerms(foreground, background, attention, relation)
