"""What is measured in detection and in segmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from mmkd_plugin.errors import DistillError

_IN_POINTS = ('aAcc', 'mIoU', 'mAcc', 'mDice', 'mFscore', 'mPrecision', 'mRecall')
"""What MMSegmentation's metrics give in points."""


@dataclasses.dataclass(frozen=True)
class Task:
    """How a study of one task is shown.

    Attributes:
        name: ``'detection'`` or ``'segmentation'``.
        measure: What the metrics are, for the head of a table.
        metrics: Evaluator's names by column; gains are measured in the first.
    """

    name: str
    measure: str
    metrics: dict[str, str]

    @property
    def main(self) -> str:
        """Column of the metric that gains are measured in."""
        return next(iter(self.metrics))


DETECTION = Task('detection', 'COCO metrics', {'mAP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50'})
SEGMENTATION = Task('segmentation', 'mean IoU and accuracy', {'mIoU': 'mIoU', 'mAcc': 'mAcc'})


def task_of(metrics: Iterable[str]) -> Task:
    """The task whose metrics these are.

    Args:
        metrics: Names of the values that an evaluator gave.

    Raises:
        DistillError: If they belong to no known task.
    """
    names = set(metrics)
    for task in (DETECTION, SEGMENTATION):
        if names.issuperset(task.metrics.values()):
            return task
    raise DistillError(
        f'A study shows the metrics of CocoMetric for boxes or of IoUMetric, but the evaluator gave {sorted(names)}; '
        'set val_evaluator and test_evaluator to one of them.'
    )


def as_fractions(metrics: Mapping[str, float]) -> dict[str, float]:
    """Values as fractions of 1, whichever package they come from."""
    return {key: float(value) / (100 if key in _IN_POINTS else 1) for key, value in metrics.items()}
