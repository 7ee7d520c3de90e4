"""Boxes of detectors for :func:`mmkd_plugin.study.pictures.canvas.side_by_side`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

SCORE = 0.3
"""Detections below it are not drawn."""

TOLD_BY_COLOUR = 10
"""Of more classes than colours the names stand beside the scores, in place of a legend."""


def colour(label: int) -> tuple[float, ...]:
    """Colour of a class."""
    return matplotlib.colormaps['tab10'](label % 10)


class DetectionPainter:
    """True boxes, and each model's boxes with their scores.

    Args:
        metainfo: The data set's, with ``classes``.
        score: Detections below it are left out.
    """

    columns: tuple[str, ...] = ('truth',)

    def __init__(self, metainfo: dict, score: float = SCORE) -> None:
        self.classes = metainfo['classes']
        self.score = score

    def richness(self, dataset: Any, index: int) -> int:
        """Number of objects."""
        return len(dataset.get_data_info(index)['instances'])

    def legend(self) -> list[tuple[str, Any]]:
        """The classes, where each has a colour of its own."""
        if len(self.classes) > TOLD_BY_COLOUR:
            return []
        return [(name, colour(index)) for index, name in enumerate(self.classes)]

    def paint_truth(self, axes: Sequence[Axes], image: np.ndarray, sample: Any) -> None:
        """The true boxes."""
        truth = sample.gt_instances
        boxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        axes[0].imshow(image)
        draw_boxes(axes[0], boxes, truth.labels, [''] * len(boxes))

    def paint_prediction(self, axis: Axes, image: np.ndarray, sample: Any, truth: Any) -> None:
        """The boxes found, in the image's own size."""
        found = sample.pred_instances
        scale = torch.tensor(truth.metainfo.get('scale_factor', (1.0, 1.0))).repeat(2)
        keep = found.scores >= self.score
        axis.imshow(image)
        names = [self._name(label) for label in found.labels[keep].tolist()]
        scores = [f' {name}{value:.2f}' for name, value in zip(names, found.scores[keep])]
        draw_boxes(axis, found.bboxes[keep] * scale, found.labels[keep], scores)

    def _name(self, label: int) -> str:
        """What stands in front of a score; a teacher may know more classes than the data."""
        if len(self.classes) <= TOLD_BY_COLOUR and label < len(self.classes):
            return ''
        return f'{self.classes[label]} ' if label < len(self.classes) else f'class {label} '


def draw_boxes(axis: Axes, boxes: Tensor, labels: Tensor, texts: Sequence[str]) -> None:
    """Outlines in the colour of their class, each with its text."""
    for (x1, y1, x2, y2), label, text in zip(boxes.tolist(), labels.tolist(), texts):
        edge = colour(label)
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=edge, lw=1.5))
        if text:
            axis.text(
                x1, y1, text, fontsize=6, color='white', backgroundcolor=(*edge[:3], 0.7), va='bottom', clip_on=True
            )
