"""Textures in whole numbers, for backgrounds and for the insides of shapes."""

from __future__ import annotations

from typing import Callable

import numpy as np

from mmkd_plugin.datasets.coco_mini.fixed_point import TURN, rotate
from mmkd_plugin.datasets.coco_mini.prng import Stream

FULL = 256
"""A pattern runs from 0 (first colour) to 256 (second colour)."""


def value_noise(stream: Stream, height: int, width: int, period: int) -> np.ndarray:
    """Interpolate random values on a grid.

    Args:
        stream: Source of the values.
        height: In pixels.
        width: In pixels.
        period: Distance of the grid's points in pixels.

    Returns:
        Values from 0 to 255, ``(height, width)`` int64.
    """
    grid = stream.integers(0, 256, (height // period + 2, width // period + 2))
    row, down = np.divmod(np.arange(height, dtype=np.int64), period)
    column, right = np.divmod(np.arange(width, dtype=np.int64), period)
    lines = grid[row] * (period - down)[:, None] + grid[row + 1] * down[:, None]
    return (lines[:, column] * (period - right) + lines[:, column + 1] * right) // (period * period)


def _axes(stream: Stream, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates, in 1/16 pixel, of a grid turned by a random angle about a random origin."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64) * 16
    x, y = rotate(x, y, stream.integer(0, TURN))
    return x + stream.integer(0, 4096), y + stream.integer(0, 4096)


def _period(stream: Stream, height: int) -> int:
    """A period in 1/16 pixel, 5 to 26 pixels in a picture 128 pixels high."""
    return 16 * max(3, height * stream.integer(5, 27) // 128)


def _gradient(stream: Stream, height: int, width: int) -> np.ndarray:
    along, _ = _axes(stream, height, width)
    low, high = along.min(), along.max()
    return (along - low) * FULL // max(high - low, 1)


def _clouds(stream: Stream, height: int, width: int) -> np.ndarray:
    periods = [max(2, height // cells) for cells in (4, 8, 16, 32)]
    layers = [value_noise(stream, height, width, period) for period in periods]
    return (8 * layers[0] + 4 * layers[1] + 2 * layers[2] + 2 * layers[3]) // 16


def _stripes(stream: Stream, height: int, width: int) -> np.ndarray:
    along, _ = _axes(stream, height, width)
    period = _period(stream, height)
    return np.where(along // (period // 2) % 2 == 1, FULL, 0)


def _waves(stream: Stream, height: int, width: int) -> np.ndarray:
    along, _ = _axes(stream, height, width)
    half = _period(stream, height)
    return abs(along % (2 * half) - half) * FULL // half


def _checker(stream: Stream, height: int, width: int) -> np.ndarray:
    along, across = _axes(stream, height, width)
    period = _period(stream, height)
    return np.where((along // period + across // period) % 2 == 1, FULL, 0)


def _bricks(stream: Stream, height: int, width: int) -> np.ndarray:
    along, across = _axes(stream, height, width)
    tall = _period(stream, height)
    row = across // tall
    shifted = along + row % 2 * tall
    shades = stream.integers(96, FULL, (64, 64))[row % 64, shifted // (2 * tall) % 64]
    joint = (across % tall < 16) | (shifted % (2 * tall) < 16)
    return np.where(joint, 0, shades)


def _blobs(stream: Stream, height: int, width: int) -> np.ndarray:
    noise = value_noise(stream, height, width, max(2, height * stream.integer(6, 20) // 128))
    return np.where(noise > stream.integer(100, 156), FULL, 0)


Pattern = Callable[[Stream, int, int], np.ndarray]

BACKGROUNDS: tuple[Pattern, ...] = (_clouds, _clouds, _gradient, _stripes, _waves, _checker, _bricks, _blobs)
"""Patterns behind the objects; clouds are twice as frequent."""

FILLS: tuple[Pattern, ...] = (_gradient, _gradient, _clouds, _stripes, _checker, _blobs)
"""Patterns inside a shape; gradients are twice as frequent."""


def blend(pattern: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Colour a pattern.

    Args:
        pattern: 0 to 256, ``(h, w)``.
        first: Colour at 0, ``(3,)``.
        second: Colour at 256, ``(3,)``.

    Returns:
        Colours, ``(h, w, 3)`` int64.
    """
    return first + pattern[..., None] * (second - first) // FULL


def soften(picture: np.ndarray) -> np.ndarray:
    """Average each pixel of ``(h, w, 3)`` with its eight neighbours."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode='edge')
    rows = padded[:height] + padded[1 : height + 1] + padded[2:]
    return (rows[:, :width] + rows[:, 1 : width + 1] + rows[:, 2:]) // 9
