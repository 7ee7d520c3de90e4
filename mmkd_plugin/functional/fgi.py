"""Fine-grained feature imitation (FGI), Wang et al., CVPR 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.reductions import squared_distances
from mmkd_plugin.utilities.checks import require_choice, require_same_shape
from mmkd_plugin.utilities.precision import full_precision
from mmkd_plugin.utilities.sharing import shared

READINGS = ('assigned', 'all', 'global')

_MAX_OVERLAPS = 2**22
"""Pairs of a box and a cell that are gone through at once: 16 MiB in float32, of which about five live at a time."""


@full_precision
def box_levels(boxes: Tensor, levels: int, base_size: float = 56.0) -> Tensor:
    r"""The pyramid level that each box is assigned to.

    .. math:: \lfloor \log_2 (\sqrt{(w + 1)(h + 1)} / base + 10^{-6}) \rfloor \text{ within } [0, levels - 1]

    Args:
        boxes: ``(..., 4)``, ``x1 y1 x2 y2`` in pixels.
        levels: Number of levels.
        base_size: Side in pixels of the smallest box of level 1 is twice this. 56 suits a pyramid that starts at
            stride 4.

    Returns:
        Index of the level, ``(...)`` long.

    Example:
        >>> import torch
        >>> box_levels(torch.tensor([[0., 0., 100., 100.], [0., 0., 120., 120.]]), levels=5)
        tensor([0, 1])
    """
    width, height = boxes[..., 2] - boxes[..., 0] + 1, boxes[..., 3] - boxes[..., 1] + 1
    level = torch.log2((width * height).clamp(min=0).sqrt() / base_size + 1e-6).floor()
    return level.clamp(0, levels - 1).long()


@shared
@torch.no_grad()
@full_precision
def imitation_masks(
    priors: Sequence[Tensor],
    boxes: Tensor,
    valid: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    psi: float = 0.5,
    reading: str = 'assigned',
    plus_one_pixel: bool = False,
    base_size: float = 56.0,
    max_overlaps: int = _MAX_OVERLAPS,
) -> list[Tensor]:
    r"""Cells of each level that lie near an object, judged by the anchors on them.

    A cell is lit by a box b where one of its anchors a has :math:`IoU(a, b) > \psi \max_{a'} IoU(a', b)`, strictly. So
    psi 1 lights nothing and psi 0 every cell that overlaps. Anchors that cross the border of the image take part.

    The paper has one feature map; three readings exist for a pyramid. ``'assigned'``, the default and closest to the
    authors' own statement: a box lights the level it is assigned to by its size (:func:`box_levels`) and the maximum is
    taken there. ``'all'``: a box lights every level, each against its own maximum. ``'global'``: a box lights every
    level, against one maximum over all of them. On a single map the three agree.

    Of the anchors of a cell only the largest IoU is kept, and boxes are gone through a limited number at a time, so
    that memory grows with neither the number of boxes nor that of the anchors of a cell.

    Args:
        priors: Anchors of each level, ``(H * W * K, 4)`` with the K anchors of a cell in succession, or
            ``(H, W, K, 4)``; ``x1 y1 x2 y2`` in pixels of the network input.
        boxes: Padded ground truth, ``(N, B, 4)``, in the same pixels; B may be 0.
        valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
        sizes: Height and width of each level.
        psi: Share of the maximum that lights a cell.
        reading: ``'assigned'``, ``'all'`` or ``'global'``.
        plus_one_pixel: Count the last pixel into widths and heights, as the released code does; a box of one pixel
            then lights nothing.
        base_size: Of :func:`box_levels`.
        max_overlaps: How many IoUs of boxes with cells to compute at once; a single box of each image may meet more.

    Returns:
        ``(N, H, W)`` bool for each level.

    Raises:
        DistillError: If the reading is unknown, or the priors are not boxes, or are not those of the levels.

    Example:
        >>> import torch
        >>> anchors = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [16., 0., 24., 8.]])
        >>> box = torch.tensor([[[2., 0., 13., 8.]]])
        >>> imitation_masks([anchors], box, torch.tensor([[True]]), [(1, 3)])
        [tensor([[[ True,  True, False]]])]
    """
    require_choice('reading', reading, READINGS)
    if len(priors) != len(sizes):
        raise DistillError(
            f'FGI got priors of {len(priors)} levels for {len(sizes)} feature maps; record the features of the levels '
            'on which the head places its anchors.'
        )
    anchors = [_by_place(level, size) for level, size in zip(priors, sizes)]
    images, count = valid.shape
    if not count:
        return [valid.new_zeros((images, *size)) for size in sizes]
    if plus_one_pixel:
        valid = valid & ((boxes[..., 2] > boxes[..., 0]) | (boxes[..., 3] > boxes[..., 1]))
    masks = [valid.new_zeros((images, height * width)) for height, width in sizes]
    assigned = box_levels(boxes, len(sizes), base_size)
    step = max(max_overlaps // (images * sum(height * width for height, width in sizes)), 1)
    for some, used, levels in zip(boxes.split(step, 1), valid.split(step, 1), assigned.split(step, 1)):
        overlaps = [_largest_iou(some, level, float(plus_one_pixel)) for level in anchors]
        peaks = [iou.amax(-1) for iou in overlaps]
        if reading == 'global':
            peaks = [torch.stack(peaks).amax(0)] * len(peaks)
        for index, (mask, iou, peak) in enumerate(zip(masks, overlaps, peaks)):
            lights = used & (levels == index) if reading == 'assigned' else used
            mask |= (iou > torch.where(lights, psi * peak, torch.inf)[..., None]).any(1)
    return [mask.view(images, *size) for mask, size in zip(masks, sizes)]


@shared
@torch.no_grad()
@full_precision
def box_regions(
    boxes: Tensor,
    valid: Tensor,
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    reading: str = 'assigned',
    base_size: float = 56.0,
) -> list[Tensor]:
    r"""Cells of each level that a ground-truth box touches: the ablation of FGI without anchors.

    .. math:: M^l_{nij} = \exists b: \ y_1^b < (i + 1) s_l \wedge y_2^b > i s_l \wedge x_1^b < (j + 1) s_l
        \wedge x_2^b > j s_l

    with the stride :math:`s_l` and the boxes b that light level l.

    It needs no priors, so it is also the nearest valid reading for heads that predict from points.

    Args:
        boxes: Padded ground truth, ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input; B may be 0.
        valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
        sizes: Height and width of each level.
        strides: Side of a cell of each level in pixels.
        reading: ``'assigned'`` lights only the level a box is assigned to; ``'all'`` and ``'global'`` every level.
        base_size: Of :func:`box_levels`.

    Returns:
        ``(N, H, W)`` bool for each level.

    Raises:
        DistillError: If the reading is unknown, or strides and levels differ in number.

    Example:
        >>> import torch
        >>> box_regions(torch.tensor([[[9., 1., 17., 7.]]]), torch.tensor([[True]]), [(2, 4)], [8])
        [tensor([[[False,  True,  True, False],
                 [False, False, False, False]]])]
    """
    require_choice('reading', reading, READINGS)
    if len(strides) != len(sizes):
        raise DistillError(f'FGI got {len(strides)} strides for {len(sizes)} feature maps; give one stride per level.')
    assigned = box_levels(boxes, len(sizes), base_size)
    masks = []
    for index, ((height, width), stride) in enumerate(zip(sizes, strides)):
        lights = valid & (assigned == index) if reading == 'assigned' else valid
        x1, y1, x2, y2 = boxes[..., None, :].unbind(-1)
        row = torch.arange(height, device=boxes.device) * stride
        column = torch.arange(width, device=boxes.device) * stride
        in_rows = (y1 < row + stride) & (y2 > row) & lights[..., None]
        in_columns = (x1 < column + stride) & (x2 > column)
        step = max(_MAX_OVERLAPS // (len(boxes) * height * width), 1)
        mask = valid.new_zeros((len(boxes), height, width))
        for rows, columns in zip(in_rows.split(step, 1), in_columns.split(step, 1)):
            mask |= (rows[..., None] & columns[..., None, :]).any(1)
        masks.append(mask)
    return masks


@full_precision
def fgi_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], masks: Sequence[Tensor], counts: Tensor | None = None
) -> Tensor:
    r"""Squared distance on the lit cells of each level, levels added.

    .. math:: L = \sum_l \frac{1}{2 N_l} \sum_{n,c,i,j} M^l_{nij} (S^l_{ncij} - F^l_{ncij})^2

    :math:`N_l` counts the lit cells of the batch; a level without any adds 0. There is no mean over channels.

    Args:
        student: Adapted student feature of each level, ``(N, C, H, W)``; gradients flow to it.
        teacher: Teacher feature of each level, the same shapes; detached.
        masks: Lit cells of each level, ``(N, H, W)`` bool.
        counts: :math:`N_l` where it is not that of the masks themselves, ``(levels,)``.

    Returns:
        Scalar.

    Raises:
        DistillError: If student and teacher differ in shape or in the number of levels.

    Example:
        >>> import torch
        >>> student, teacher = [torch.full((1, 2, 1, 2), 3.0)], [torch.ones(1, 2, 1, 2)]
        >>> fgi_loss(student, teacher, [torch.tensor([[[True, False]]])])
        tensor(4.)
    """
    if len(student) != len(teacher):
        raise DistillError(
            f'FGI got {len(student)} levels of the student and {len(teacher)} of the teacher; match them by stride.'
        )
    for features in zip(student, teacher):
        require_same_shape(*features)
    if counts is None:
        counts = lit_cells(masks)
    sums = [(mask * squared_distances(one, other)).sum() for one, other, mask in zip(student, teacher, masks)]
    return (torch.stack(sums) / (2 * torch.where(counts > 0, counts, 1))).sum()


def lit_cells(masks: Sequence[Tensor]) -> Tensor:
    r"""Number of lit cells of each level over the batch, :math:`N_l = \sum_{n,i,j} M^l_{nij}`.

    Args:
        masks: Lit cells of each level, ``(N, H, W)`` bool.

    Returns:
        ``(levels,)`` in float32, so that ranks can average it.

    Example:
        >>> import torch
        >>> lit_cells([torch.tensor([[[True, False]], [[True, True]]])])
        tensor([3.])
    """
    return torch.stack([mask.sum() for mask in masks]).float()


def _by_place(priors: Tensor, size: tuple[int, int]) -> Tensor:
    """Anchors of a level as ``(K, 4, H * W)``: the first of every cell, then the second, and so on."""
    if priors.shape[-1] != 4:
        raise DistillError(
            f'FGI compares anchors with boxes, but the priors hold {priors.shape[-1]} numbers each; a head that '
            "predicts from points has no anchors, choose region 'boxes' for it."
        )
    flat = priors.reshape(-1, 4)
    cells = size[0] * size[1]
    if not len(flat) or len(flat) % cells:
        raise DistillError(
            f'FGI got {len(flat)} priors for a feature map of {size[0]} x {size[1]} cells; record the feature on which '
            'the head places these priors.'
        )
    return flat.view(cells, -1, 4).permute(1, 2, 0).contiguous()


def _largest_iou(boxes: Tensor, anchors: Tensor, offset: float) -> Tensor:
    """Largest IoU of ``(N, B, 4)`` boxes with the anchors of each cell, ``(K, 4, cells)``: ``(N, B, cells)``.

    Widths and heights grow by the offset.
    """
    left, top, right, bottom = boxes[..., None].unbind(2)
    areas = (right - left + offset) * (bottom - top + offset)
    largest: Tensor | None = None
    for x1, y1, x2, y2 in (anchor.unbind() for anchor in anchors):
        shared_area = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).add_(offset).clamp_(min=0)
        shared_area *= torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).add_(offset).clamp_(min=0)
        # Two boxes without area give NaN, which exceeds no threshold.
        iou = shared_area.div_(areas + (x2 - x1 + offset) * (y2 - y1 + offset) - shared_area)
        largest = iou if largest is None else torch.maximum(largest, iou, out=largest)
    assert largest is not None
    return largest
