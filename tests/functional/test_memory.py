"""The memory counter adds up what lives at one time."""

from __future__ import annotations

import torch
from _helpers.memory import PeakMemory


def test_released_tensors_are_not_counted():
    with PeakMemory() as memory:
        x = torch.zeros(1000)
        for _ in range(5):
            x = x + 1
    assert memory.peak == 2 * 4000


def test_views_and_changes_in_place_take_nothing():
    with PeakMemory() as memory:
        torch.zeros(1000).view(10, 100).add_(1)
    assert memory.peak == 4000


def test_tensors_from_outside_are_not_counted():
    x = torch.zeros(1000)
    with PeakMemory() as memory:
        x.view(10, 100).add_(1)
    assert memory.peak == 0


def test_what_the_backward_pass_keeps_is_counted():
    x = torch.ones(1000, requires_grad=True)
    with PeakMemory() as memory:
        y = x.exp().exp().exp()
    assert memory.peak == 3 * 4000
    assert y.requires_grad
