"""Factors against arithmetic by hand."""

from __future__ import annotations

import math

import pytest

from mmkd_plugin.distillers.schedule import Progress, WeightSchedule
from mmkd_plugin.errors import DistillError


def factors(times, epochs=10, iterations=100, **keys):
    schedule = WeightSchedule(**keys)
    return [schedule.factor(Progress(at, at, iterations, epochs)) for at in times]


@pytest.mark.parametrize(
    ('keys', 'times', 'expected'),
    [
        (dict(), (0, 50, 99), (1, 1, 1)),
        (dict(start=3), (0, 2, 3, 99), (0, 0, 1, 1)),
        (dict(warm_up=4), (0, 1, 3, 4), (0.25, 0.5, 1, 1)),
        (dict(start=2, warm_up=2, stop=5), (1, 2, 3, 4, 5, 99), (0, 0.5, 1, 1, 0, 0)),
        (dict(decay='linear'), (0, 25, 50, 99), (1, 0.75, 0.5, 0.01)),
        (dict(decay='linear', end=50, final=0.2), (0, 25, 50, 80), (1, 0.6, 0.2, 0.2)),
        (dict(decay='cosine', end=60), (0, 20, 30, 60), (1, (1 + math.cos(math.pi / 3)) / 2, 0.5, 0)),
        (dict(decay='linear', by_epoch=True), (0, 5), (1, 0.5)),
    ],
)
def test_factor(keys, times, expected):
    assert factors(times, **keys) == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(start=-1), 'neither must be negative'),
        (dict(start=5, stop=5), 'must be after its start'),
        (dict(end=50), "needs decay='linear' or 'cosine'"),
        (dict(decay='linear', start=10, warm_up=10, end=20), 'an end after 20'),
        (dict(decay='linear', final=2), 'between 0 and 1'),
    ],
)
def test_mistakes_are_one_sentence(keys, message):
    with pytest.raises(DistillError, match=message):
        WeightSchedule(**keys)
