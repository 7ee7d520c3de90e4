"""Random blur: now and then, evenly, and only with a width."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

import mmkd_plugin.datasets  # noqa: F401
from mmkd_plugin.datasets import RandomGaussianBlur
from mmkd_plugin.errors import DistillError

POINT = np.zeros((7, 7, 3), np.uint8)
POINT[3, 3] = 255


def test_it_blurs_or_leaves_the_image():
    assert RandomGaussianBlur(prob=0.0)(dict(img=POINT.copy()))['img'].tolist() == POINT.tolist()
    blurred = RandomGaussianBlur(prob=1.0)(dict(img=POINT.copy()))['img']
    assert 0 < blurred[3, 3, 0] < 255 and blurred[3, 3, 0] > blurred[3, 4, 0] > blurred[3, 5, 0] > blurred[3, 6, 0]


def test_it_is_as_often_as_asked():
    np.random.seed(0)
    transform = TRANSFORMS.build(dict(type='mmkd_plugin.RandomGaussianBlur', prob=0.25))
    count = sum(transform(dict(img=POINT.copy()))['img'][3, 3, 0] < 255 for _ in range(400))
    assert 70 < count < 130


@pytest.mark.parametrize('sigma', [0, -1, float('nan')])
def test_no_deviation_is_refused(sigma):
    with pytest.raises(DistillError, match='must be above 0'):
        RandomGaussianBlur(sigma=sigma)
