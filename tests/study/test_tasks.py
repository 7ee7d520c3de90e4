"""Metrics tell the task."""

from __future__ import annotations

import pytest

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.tasks import DETECTION, SEGMENTATION, as_fractions, task_of


def test_metrics_tell_the_task():
    assert task_of({'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.2, 'coco/bbox_mAP_s': 0.0}) is DETECTION
    assert task_of({'aAcc': 0.9, 'mIoU': 0.3, 'mAcc': 0.4}) is SEGMENTATION


def test_other_metrics_are_named():
    with pytest.raises(DistillError, match=r'IoUMetric, but the evaluator gave \[.mDice.\]'):
        task_of({'mDice': 0.5})


def test_points_become_fractions():
    assert as_fractions({'mIoU': 42.0, 'coco/bbox_mAP': 0.5}) == {'mIoU': pytest.approx(0.42), 'coco/bbox_mAP': 0.5}
