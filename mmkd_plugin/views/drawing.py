"""What the figures have in common: the image as the network sees it, heat maps with one scale, legends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator
from torch import Tensor, nn

from mmkd_plugin.teachers.images import normalisation

BOX = '#00e5ff'
LIT = np.array([1.0, 0.75, 0.0])
SIDE = 2.3
"""Width of a map in inches."""
_DARK = 0.4
"""What is left of the image's brightness outside an area."""
_OPACITY = 0.8
_RANGE = 1e-4
"""The lowest colour of a logarithmic scale in its highest, at the least."""


def network_image(preprocessor: nn.Module, image: Tensor) -> np.ndarray:
    """A preprocessed image as RGB, padding and augmentations included, since maps of features lie over these.

    Args:
        preprocessor: What made it.
        image: ``(3, H, W)``.

    Returns:
        ``(H, W, 3)``, uint8.
    """
    mean, std, swapped = normalisation(preprocessor)
    pixels = image.detach().float().cpu() * std + mean
    # Files are read as BGR.
    pixels = pixels if swapped else pixels.flip(0)
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def heat_maps(
    figure: FigureBase, image: np.ndarray, rows: Mapping[str, Sequence[Tensor]], label: str, log: bool = False
) -> None:
    """Fill a figure with an image and maps over it: a row for each entry, a column for each level, one colour scale.

    Args:
        figure: To fill.
        image: ``(H, W, 3)`` as RGB.
        rows: Maps ``(H, W)`` of each level by the title of the row.
        label: What the colours stand for.
        log: Whether the scale is logarithmic; else it begins at 0 and goes by the root, so that one peak leaves the
            rest visible.
    """
    height, width = image.shape[:2]
    columns = max(len(maps) for maps in rows.values())
    axes = figure.subplots(len(rows), columns + 1, squeeze=False)
    bare(axes.flat)
    axes[0, 0].imshow(image)
    axes[0, 0].set_title('image')
    for axis in axes[1:, 0]:
        axis.set_visible(False)
    values = torch.cat([value.flatten() for maps in rows.values() for value in maps])
    norm = _scale(values, log)
    grey = image.mean(-1)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    shown: Any = None
    for line, (title, maps) in zip(axes, rows.items()):
        line[1].set_ylabel(title)
        for axis in line[1 + len(maps) :]:
            axis.set_visible(False)
        for axis, value in zip(line[1:], maps):
            axis.imshow(grey, cmap='gray', vmin=0, vmax=255)
            shown = axis.imshow(
                value.numpy(), norm=norm, extent=extent, alpha=_OPACITY, interpolation='nearest', cmap='viridis'
            )
    for axis, value in zip(axes[0, 1:], next(iter(rows.values()))):
        axis.set_title(f'stride {stride_of(image, value)}')
    # Plain numbers, a few of each power of ten.
    ticks: Any = dict(ticks=LogLocator(subs=(1, 2, 5)), format='%g') if log else {}
    bar = figure.colorbar(shown, ax=list(axes[:, 1:].flat), label=label, pad=0.01, **ticks)
    bar.minorticks_off()


def heat_size(image: np.ndarray, rows: int, levels: int) -> tuple[float, float]:
    """Width and height in inches of what :func:`heat_maps` draws."""
    return SIDE * (levels + 1) + 0.9, rows * (SIDE * image.shape[0] / image.shape[1] + 0.15) + 0.4


def stride_of(image: np.ndarray, level: Tensor) -> int:
    """Pixels per cell of a map ``(H, W)`` over an image ``(H, W, 3)``.

    The last cells of a map may reach beyond the image; then it is the power of two that comes nearest on the side that
    tells more.
    """
    down, across = (pixels / cells for pixels, cells in zip(image.shape, level.shape))
    return round(down) if down == across else 2 ** round(math.log2(max(down, across)))


def bare(axes: Any) -> None:
    """Take the ticks off."""
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])


def tinted(image: np.ndarray, lit: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """An image, tinted in some of its pixels and dark elsewhere.

    Args:
        image: ``(H, W, 3)``, uint8.
        lit: ``(H, W)`` bool.
        colour: RGB from 0 to 1.

    Returns:
        ``(H, W, 3)`` from 0 to 1.
    """
    pixels = image / 255
    return np.where(lit[..., None], 0.55 * pixels + 0.45 * colour, _DARK * pixels)


def draw_boxes(axis: Axes, boxes: Tensor) -> None:
    """Outlines of ground-truth boxes, ``(B, 4)``."""
    for x1, y1, x2, y2 in boxes.tolist():
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=BOX, lw=1.3))


def add_legend(figure: Figure, entries: Sequence[tuple[str, Any]]) -> None:
    """A line of named colours below a figure, of as many rows as its width asks for; nothing without entries."""
    if not entries:
        return
    handles = [Patch(facecolor=colour, edgecolor='grey', label=name) for name, colour in entries]
    letters = sum(len(name) + 6 for name, _ in entries)
    rows = -(-letters // max(1, int(10 * figure.get_figwidth())))
    figure.legend(handles=handles, loc='outside lower center', ncols=-(-len(handles) // rows))


def figure_pixels(figure: Figure) -> np.ndarray:
    """A figure as ``(H, W, 3)`` RGB, uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _scale(values: Tensor, log: bool) -> Normalize:
    """One scale for all values."""
    values = values[values.isfinite()]
    lowest, highest = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    if highest <= 0:
        return Normalize(0.0, 1.0)
    if log:
        # Neither a map that is the same everywhere nor one that falls to nothing has a range to show.
        return LogNorm(max(min(lowest, highest / 1.01), _RANGE * highest), highest, clip=True)
    return PowerNorm(0.5, 0.0, highest)
