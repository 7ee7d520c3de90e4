"""Annotations in COCO's format."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmkd_plugin.datasets.coco_mini.scene import Instance


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Encode a mask as COCO's uncompressed run lengths.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        ``size`` is ``[H, W]``; ``counts`` are the lengths of alternating runs, down the columns, beginning with zeros.
    """
    flat = np.concatenate([[False], mask.flatten(order='F')])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {'size': list(mask.shape), 'counts': counts.tolist()}


def annotation(instance: Instance, number: int, image: int) -> dict[str, Any]:
    """Describe one instance: its box is the extent and its area the pixel count of the visible mask.

    Args:
        instance: With at least one visible pixel.
        number: The annotation's id.
        image: The picture's id.

    Returns:
        The entry of the annotation file; the box is ``[x, y, width, height]`` in pixels.
    """
    rows, columns = np.flatnonzero(instance.mask.any(axis=1)), np.flatnonzero(instance.mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        'id': number,
        'image_id': image,
        'category_id': instance.label + 1,
        'iscrowd': int(instance.crowd),
        'area': int(instance.mask.sum()),
        'bbox': [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        'segmentation': run_lengths(instance.mask),
    }


def json_bytes(content: Any) -> bytes:
    """Write JSON in one fixed way: no spaces, keys in the order given, ASCII alone."""
    return json.dumps(content, separators=(',', ':'), ensure_ascii=True).encode('ascii')
