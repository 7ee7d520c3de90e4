"""The shapes of COCO-mini: six classes, and distractors that look like a class with a detail wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from mmkd_plugin.datasets.coco_mini.fixed_point import rotate

RADIUS = 1024
"""A shape reaches about this far from its centre in its own coordinates."""

SUBPIXELS = 12
"""Positions and sizes are counted in 1/12 pixel."""

_SAMPLES = 3
"""Each pixel is sampled on a grid of 3 by 3 points."""

Figure = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

# Unit normals, times 1024, of the five lines whose arrangement is a pentagram.
_PENTAGRAM = ((1024, 0), (316, 974), (-828, 602), (-828, -602), (316, -974))


def _disc(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return u * u + v * v <= RADIUS * RADIUS


def _ring(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    hole = 360 + detail
    return _disc(u, v, detail) & (u * u + v * v >= hole * hole)


def _square(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) <= 860


def _triangle(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return (v <= 640) & (abs(u) * 1664 <= 960 * (v + RADIUS))


def _cross(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    arm = 220 + detail // 2
    return (np.minimum(abs(u), abs(v)) <= arm) & (np.maximum(abs(u), abs(v)) <= 1000)


def _star(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    # A point of the pentagram lies on the inner side of at least four of its five lines.
    inner = sum((u * a + v * b <= 316 * RADIUS).astype(np.int64) for a, b in _PENTAGRAM)
    core = 391 + detail // 2
    return (inner >= 4) | (u * u + v * v <= core * core)


def _half_disc(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return _disc(u, v, detail) & (v >= detail - 300)


def _open_ring(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return _ring(u, v, detail) & ((u < 0) | (abs(v) > 260 + detail // 2))


def _crescent(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    shift = 420 + detail
    return _disc(u, v, detail) & ((u - shift) * (u - shift) + v * v > 900 * 900)


def _corner(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return _square(u, v, detail) & ((u < -detail) | (v < -detail))


def _rhombus(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return abs(u) * 9 + abs(v) * 20 <= 9 * RADIUS


def _tee(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return _cross(u, v, detail) & (v >= -220 - detail // 2)


def _bar(u: np.ndarray, v: np.ndarray, detail: int) -> np.ndarray:
    return (abs(u) <= 1000) & (abs(v) <= 160 + detail // 2)


CLASSES: dict[str, Figure] = {
    'disc': _disc,
    'ring': _ring,
    'square': _square,
    'triangle': _triangle,
    'cross': _cross,
    'star': _star,
}
"""What is annotated, in the order of the labels."""

DISTRACTORS: dict[str, Figure] = {
    'half_disc': _half_disc,
    'open_ring': _open_ring,
    'crescent': _crescent,
    'corner': _corner,
    'rhombus': _rhombus,
    'tee': _tee,
    'bar': _bar,
}
"""What is drawn like an object and belongs to the background."""


@dataclass(frozen=True)
class Pose:
    """Where and how a shape stands.

    Attributes:
        x: Centre from the left edge, in 1/12 pixel.
        y: Centre from the upper edge, in 1/12 pixel.
        radius: In 1/12 pixel.
        angle: In 1/256 turn.
        squash: How much flatter than high, in 1/256 of the height.
        detail: 0 to 255; size of the hole, width of the arm and the like.
    """

    x: int
    y: int
    radius: int
    angle: int
    squash: int
    detail: int


def coverage(figure: Figure, pose: Pose) -> tuple[np.ndarray, int, int]:
    """Rasterise a shape.

    Args:
        figure: Tells which points, in coordinates where the shape has radius 1024, are inside.
        pose: Where the shape stands; it may leave the image.

    Returns:
        Covered sample points of each pixel, 0 to 9, ``(h, w)`` int64, and the column and row in the image of the
        upper left one of these pixels.
    """
    reach = pose.radius * 5 // 4 // SUBPIXELS + 2
    left, top = pose.x // SUBPIXELS - reach, pose.y // SUBPIXELS - reach
    width = 2 * reach + 1
    points = np.arange(width * _SAMPLES, dtype=np.int64) * (SUBPIXELS // _SAMPLES) + SUBPIXELS // (2 * _SAMPLES)
    x = (points + left * SUBPIXELS - pose.x)[None, :] * RADIUS // pose.radius
    y = (points + top * SUBPIXELS - pose.y)[:, None] * RADIUS // pose.radius
    u, v = rotate(x, y, pose.angle)
    inside = figure(u, v * 256 // (256 - pose.squash), pose.detail)
    return inside.reshape(width, _SAMPLES, width, _SAMPLES).sum(axis=(1, 3), dtype=np.int64), left, top
