"""Shapes must have the area and place that geometry gives them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mmkd_plugin.datasets.coco_mini.shapes import CLASSES, DISTRACTORS, SUBPIXELS, Pose, coverage

# Turned, so that straight edges do not run along the sampling grid.
POSE = Pose(x=50 * SUBPIXELS, y=40 * SUBPIXELS, radius=20 * SUBPIXELS, angle=20, squash=0, detail=128)


def area(name: str, pose: Pose = POSE) -> float:
    return coverage({**CLASSES, **DISTRACTORS}[name], pose)[0].sum() / 9


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('disc', math.pi * 400),
        # Hole of radius 488 / 1024.
        ('ring', math.pi * 400 * (1 - (488 / 1024) ** 2)),
        # Half a side is 860 / 1024.
        ('square', 4 * 400 * (860 / 1024) ** 2),
        # Height and half the base are 1664 / 1024 and 960 / 1024.
        ('triangle', 400 * 1664 / 1024 * 960 / 1024),
        # Two bars, 2000 by 568 each, less the square they share.
        ('cross', 400 * (2 * 2000 * 568 - 568**2) / 1024**2),
        ('bar', 400 * 2000 * 448 / 1024**2),
    ],
)
def test_area(name, expected):
    assert area(name) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize('name', CLASSES)
def test_area_does_not_depend_on_the_angle(name):
    areas = [area(name, replace(POSE, angle=angle)) for angle in (7, 20, 100)]
    assert max(areas) < 1.03 * min(areas)


def test_squashing_takes_its_share_of_the_area():
    assert area('square', replace(POSE, squash=64)) == pytest.approx(0.75 * area('square'), rel=0.03)


def test_shape_moves_with_its_pose():
    cover, left, top = coverage(CLASSES['star'], POSE)
    moved, moved_left, moved_top = coverage(
        CLASSES['star'], replace(POSE, x=POSE.x + 3 * SUBPIXELS, y=POSE.y - 2 * SUBPIXELS)
    )
    assert (moved_left, moved_top) == (left + 3, top - 2)
    assert np.array_equal(moved, cover)


@pytest.mark.parametrize('name', [*CLASSES, *DISTRACTORS])
def test_nothing_is_cut_off_by_the_window(name):
    cover, _, _ = coverage({**CLASSES, **DISTRACTORS}[name], replace(POSE, angle=32))
    assert not cover[[0, -1]].any()
    assert not cover[:, [0, -1]].any()
