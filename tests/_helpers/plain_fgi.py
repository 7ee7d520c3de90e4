"""FGI's masks as their definition reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkd_plugin.functional import box_levels


def masks_by_loops(
    anchors: list[Tensor], boxes: Tensor, valid: Tensor, sizes: list[tuple[int, int]], **options: Any
) -> list[Tensor]:
    """FGI's masks as its definition reads, box by box and anchor by anchor."""
    more = float(options['plus_one_pixel'])

    def iou(a: Tensor, b: Tensor) -> Tensor:
        width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0]) + more).clamp(min=0)
        height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1]) + more).clamp(min=0)
        area = [(x[2] - x[0] + more) * (x[3] - x[1] + more) for x in (b, a)]
        return width * height / (area[0] + area[1] - width * height)

    masks = [torch.zeros(len(boxes), *size, dtype=torch.bool) for size in sizes]
    for image, box in valid.nonzero().tolist():
        found = boxes[image, box]
        if options['plus_one_pixel'] and found[2] <= found[0] and found[3] <= found[1]:
            continue
        ious = [torch.stack([iou(anchor, found) for anchor in level]) for level in anchors]
        peaks = [level.max() for level in ious]
        if options['reading'] == 'global':
            peaks = [torch.stack(peaks).max()] * len(peaks)
        for index, (mask, level, peak) in enumerate(zip(masks, ious, peaks)):
            if options['reading'] == 'assigned' and box_levels(found, len(masks), options['base_size']) != index:
                continue
            lit = (level > options['psi'] * peak).view(*mask.shape[1:], -1).any(-1)
            mask[image] |= lit
    return masks
