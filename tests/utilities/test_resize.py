"""Resizing by hand."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.utilities.resize import resize_map


@pytest.mark.parametrize(
    # The centres of four cells lie at 1/8, 3/8, 5/8 and 7/8 of the map, those of two at 1/4 and 3/4; with aligned
    # corners at thirds of the way.
    ('options', 'expected'),
    [({}, [0.0, 3.0, 9.0, 12.0]), ({'align_corners': True}, [0.0, 4.0, 8.0, 12.0])],
)
def test_by_hand(options, expected):
    row = torch.tensor([[[[0.0, 12.0]]]])
    assert resize_map(row, (1, 4), **options).flatten().tolist() == pytest.approx(expected)


def test_map_of_the_size_is_returned_as_it_is():
    feature = torch.randn(1, 2, 3, 4)
    assert resize_map(feature, (3, 4)) is feature


def test_height_and_width_are_told_apart():
    assert resize_map(torch.zeros(2, 3, 4, 4), (5, 6)).shape == (2, 3, 5, 6)
    assert resize_map(torch.zeros(2, 3, 4, 6), (5, 6)).shape == (2, 3, 5, 6)
