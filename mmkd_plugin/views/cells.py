"""The cells that FGI imitates on a training image, level by level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmkd_plugin.distillers import Distiller
from mmkd_plugin.methods.fgi import FGILoss
from mmkd_plugin.views.compared import losses_of
from mmkd_plugin.views.drawing import BOX, LIT, add_legend, draw_boxes, tinted


@dataclasses.dataclass(frozen=True)
class Level:
    """What is imitated on one level.

    Attributes:
        stride: Side of a cell in pixels.
        mask: ``(H, W)`` bool.
        corner: Column and row of the first cell's upper left corner; with anchors, which lie around the middle of their
            cell, not always the image's.
    """

    stride: int
    mask: Tensor
    corner: tuple[float, float]


@torch.no_grad()
def cell_levels(distiller: Distiller, index: int = 0) -> list[Level]:
    """The cells of every FGI loss of a step, with the block's own options and the student's own anchors.

    Args:
        distiller: Holds the records of a step.
        index: Of the image in the batch.

    Returns:
        From fine to coarse; empty without FGI.
    """
    levels = []
    for loss, arguments in losses_of(distiller, FGILoss):
        sizes = [(feature.shape[2], feature.shape[3]) for feature in arguments['student']]
        priors = arguments.get('priors')
        masks = loss.masks(sizes, arguments['boxes'], arguments['valid'], priors)
        for level, (stride, mask) in enumerate(zip(loss.strides or (), masks)):
            corner = (0.0, 0.0) if priors is None else _corner(priors[level], stride)
            levels.append(Level(stride, mask[index].cpu(), corner))
    return levels


def cells_figure(image: np.ndarray, boxes: Tensor, levels: Sequence[Level]) -> Figure:
    """The image with its boxes, and the cells of each level.

    Args:
        image: As the network sees it, ``(H, W, 3)`` RGB.
        boxes: Of its objects, ``(B, 4)``.
        levels: Its cells.

    Returns:
        The figure.
    """
    height, width = image.shape[:2]
    rows = 1 if len(levels) < 4 else 2
    columns = -(-(len(levels) + 1) // rows)
    figure = Figure(figsize=(3 * columns, rows * (3 * height / width + 0.3) + 0.4), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(image)
    axes[0].set_title('training image')
    draw_boxes(axes[0], boxes)
    for axis, level in zip(list(axes)[1:], levels):
        axis.imshow(tinted(image, _pixels(level, height, width), LIT))
        draw_boxes(axis, boxes)
        axis.set_title(f'stride {level.stride}: {int(level.mask.sum())} of {level.mask.numel()} cells')
    add_legend(figure, [('imitated', LIT), ('object', BOX)])
    return figure


def _corner(priors: Tensor, stride: int) -> tuple[float, float]:
    """Upper left corner of the cell whose anchors come first."""
    x1, y1, x2, y2 = priors.reshape(-1, 4)[0].tolist()
    return (x1 + x2 - stride) / 2, (y1 + y2 - stride) / 2


def _pixels(level: Level, height: int, width: int) -> np.ndarray:
    """Whether each pixel of an image lies in an imitated cell."""
    column, row = level.corner
    columns = np.floor((np.arange(width) + 0.5 - column) / level.stride).astype(int)
    rows = np.floor((np.arange(height) + 0.5 - row) / level.stride).astype(int)
    # A frame of unlit cells stands for what lies beyond the map.
    framed = np.pad(level.mask.numpy(), 1)
    last = [side - 1 for side in framed.shape]
    return framed[np.clip(rows + 1, 0, last[0])[:, None], np.clip(columns + 1, 0, last[1])]
