"""The areas that FGD tells apart on a training image, level by level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from mmkd_plugin.distillers import Distiller
from mmkd_plugin.methods.fgd import FGDLoss
from mmkd_plugin.views.compared import losses_of
from mmkd_plugin.views.drawing import BOX, LIT, SIDE, add_legend, bare, draw_boxes, stride_of, tinted

BACKGROUND = np.array([0.2, 0.55, 1.0])


@dataclasses.dataclass(frozen=True)
class AreaLevel:
    """FGD's masks on one level of one image.

    Attributes:
        foreground: Weight of each cell in the foreground's term, ``(H, W)``.
        background: That in the background's.
    """

    foreground: Tensor
    background: Tensor

    @property
    def scale(self) -> Tensor:
        """The scale mask of the paper: what each cell weighs, in whichever area."""
        return self.foreground + self.background


@torch.no_grad()
def area_levels(distiller: Distiller, index: int = 0) -> list[AreaLevel]:
    """The masks of every FGD loss of a step, with the block's own options.

    Args:
        distiller: Holds the records of a step.
        index: Of the image in the batch.

    Returns:
        From fine to coarse; empty without FGD.
    """
    levels = []
    for loss, arguments in losses_of(distiller, FGDLoss):
        facts = {fact: arguments[fact][index : index + 1] for fact in ('boxes', 'valid', 'image_shapes')}
        foreground, background = loss.masks(**facts, size=tuple(arguments['student'].shape[2:]))
        levels.append(AreaLevel(foreground[0].cpu(), background[0].cpu()))
    return levels


def areas_figure(image: np.ndarray, boxes: Tensor, levels: Sequence[AreaLevel]) -> Figure:
    """The image with its boxes, and for each level the foreground, the background and what the cells weigh.

    Args:
        image: As the network sees it, ``(H, W, 3)`` RGB.
        boxes: Of its objects, ``(B, 4)``.
        levels: Its masks.

    Returns:
        The figure.
    """
    height, width = image.shape[:2]
    size = (SIDE * (len(levels) + 1) + 0.9, 3 * (SIDE * height / width + 0.15) + 0.8)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(3, len(levels) + 1, squeeze=False)
    bare(axes.flat)
    axes[0, 0].imshow(image)
    axes[0, 0].set_title('training image')
    for axis in axes[1:, 0]:
        axis.set_visible(False)
    for axis, title in zip(axes[:, 1], ('foreground', 'background', 'scale')):
        axis.set_ylabel(title)
    weights = torch.cat([level.scale[level.scale > 0] for level in levels])
    norm = LogNorm(float(weights.min()), max(float(weights.max()), 1.01 * float(weights.min())))
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    for column, level in zip(axes.T[1:], levels):
        lit = level.foreground > 0
        column[0].set_title(f'stride {stride_of(image, lit)}: {int(lit.sum())} of {lit.numel()} cells')
        column[0].imshow(tinted(image, _pixels(lit, height, width), LIT))
        column[1].imshow(tinted(image, _pixels(level.background > 0, height, width), BACKGROUND))
        # Cells of a box are told apart only in their logarithm from those of the background.
        shown = column[2].imshow(level.scale.numpy(), norm=norm, extent=extent, interpolation='nearest')
    for axis in [axes[0, 0], *axes[:, 1:].flat]:
        draw_boxes(axis, boxes)
    figure.colorbar(shown, ax=list(axes[2, 1:]), label='weight of a cell', pad=0.01)
    add_legend(figure, [('foreground', LIT), ('background', BACKGROUND), ('object', BOX)])
    return figure


def _pixels(lit: Tensor, height: int, width: int) -> np.ndarray:
    """The cells of a map that lies over a whole image, pixel by pixel."""
    rows = np.arange(height) * lit.shape[0] // height
    columns = np.arange(width) * lit.shape[1] // width
    return lit.numpy()[rows[:, None], columns]
