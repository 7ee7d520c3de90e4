"""Averages by hand."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.utilities.averaging import average

LOSSES = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
WEIGHT = torch.tensor([[1.0, 0.0], [0.5, 1.0]])


@pytest.mark.parametrize('of', [float, torch.tensor], ids=['number', 'tensor'])
@pytest.mark.parametrize(
    ('weight', 'count', 'expected'),
    [(None, 4.0, 3.0), (WEIGHT, 4.0, 8.5 / 4), (None, 0.5, 24.0), (None, 0.0, 12.0), (WEIGHT * 0, 0.0, 0.0)],
)
def test_by_hand(of, weight, count, expected):
    result = average(LOSSES, weight, of(count))
    assert result.shape == ()
    assert result == expected
