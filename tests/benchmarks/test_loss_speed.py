"""What is timed is the same loss on each side."""

from __future__ import annotations

import pytest
import torch

from benchmarks.loss_speed import LOSSES, FGDMaps, HolisticMaps, cells, require_equal, seconds
from mmkd_plugin.errors import DistillError


@pytest.fixture
def maps():
    return FGDMaps(images=2, size=(96, 160), channels=6, boxes=4, device='cpu')


@pytest.mark.parametrize('name', sorted(set(LOSSES) - {'holistic'}))
def test_plain_and_ours_have_equal_gradients(name):
    maps = LOSSES[name](images=2, size=(96, 160), channels=6, boxes=4, device='cpu')
    require_equal(maps)
    found = maps.ours()[: len(maps.students)]
    # FGI leaves levels alone that no box belongs to.
    assert sum(bool(item.abs().sum() > 0) for item in found) >= (1 if name == 'fgi' else len(found))


def test_both_discriminators_play():
    maps = HolisticMaps(images=1, size=(64, 96), channels=3, boxes=0, device='cpu')
    # A class map of 8 x 12 cells has one stage where the authors' has four.
    assert [len(game.discriminator.stages) for game in maps.games.values()] == [4, 1]
    require_equal(maps)
    assert len(maps.plain()) > len(maps.ours()) > 1


def test_sides_that_differ_are_not_timed(maps):
    plain = maps.plain()
    maps.plain = lambda: plain
    for module in maps.modules:
        module.weights['foreground'] *= 2
    with pytest.raises(DistillError, match='different gradients'):
        require_equal(maps)


def test_every_side_has_its_turn_each_round():
    turns = []
    times = seconds({'one': lambda: turns.append(1), 'two': lambda: turns.append(2)}, rounds=3)
    assert turns == [1, 2] * 4
    assert [len(values) for values in times.values()] == [3, 3]


def test_ratios_are_taken_round_by_round():
    rows = cells({'bare': [1.0, 2.0, 4.0], 'ours': [3.0, 4.0, 20.0]}, 'bare')
    assert rows == [('bare', '1.00 x', '1.00 to 1.00'), ('ours', '3.00 x', '2.00 to 5.00')]


def test_boxes_stay_in_the_image(maps):
    assert (maps.boxes >= 0).all()
    assert (maps.boxes[..., ::2] <= 160).all()
    assert (maps.boxes[..., 1::2] <= 96).all()
    assert torch.isfinite(maps.boxes).all()
