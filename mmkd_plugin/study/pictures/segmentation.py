"""Class maps of segmentors for :func:`mmkd_plugin.study.pictures.canvas.side_by_side`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

ALL_IN_LEGEND = 20
"""Of more classes, only those that are shown are in the legend."""
IGNORED = (255, 255, 255)
"""Colour of pixels without a label."""


class SegmentationPainter:
    """The image, the true map and each model's map.

    Args:
        metainfo: The data set's, with ``classes`` and ``palette``.
    """

    columns: tuple[str, ...] = ('image', 'truth')

    def __init__(self, metainfo: dict) -> None:
        self.classes = metainfo['classes']
        self.palette = np.full((256, 3), IGNORED, np.uint8)
        if self.classes:
            self.palette[: len(self.classes)] = metainfo['palette']
        self._shown: set[int] = set()

    def richness(self, dataset: Any, index: int) -> int:
        """Number of classes."""
        return len(dataset[index]['data_samples'].gt_sem_seg.data.unique())

    def legend(self) -> list[tuple[str, Any]]:
        """The classes, of many those drawn so far, and what is not labelled."""
        colours = [
            (name, self.palette[index] / 255)
            for index, name in enumerate(self.classes)
            if len(self.classes) <= ALL_IN_LEGEND or index in self._shown
        ]
        return [*colours, ('not labelled', np.array(IGNORED) / 255)]

    def paint_truth(self, axes: Sequence[Axes], image: np.ndarray, sample: Any) -> None:
        """Image and true map."""
        axes[0].imshow(image)
        self._paint(axes[1], sample.gt_sem_seg.data)

    def paint_prediction(self, axis: Axes, image: np.ndarray, sample: Any, truth: Any) -> None:
        """The map found."""
        self._paint(axis, sample.pred_sem_seg.data)

    def _paint(self, axis: Axes, labels: Tensor) -> None:
        self._shown.update(labels.unique().tolist())
        axis.imshow(self.palette[labels[0].cpu().numpy()], interpolation='nearest')
