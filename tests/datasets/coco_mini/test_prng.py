"""The integers must be those of SplitMix64."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mmkd_plugin.datasets.coco_mini.prng import Stream


def test_numbers_are_the_published_ones():
    # SplitMix64 from state 0 gives e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f; the upper halves are used.
    stream = Stream()
    assert [stream.integer(0, 1 << 32) for _ in range(3)] == [0xE220A839, 0x6E789E6A, 0x06C45D18]


def test_array_holds_the_numbers_drawn_one_by_one():
    one_by_one, at_once = Stream(5, 7), Stream(5, 7)
    expected = [one_by_one.integer(-3, 1000) for _ in range(6)]
    values = at_once.integers(-3, 1000, (2, 3))
    assert values.dtype == np.int64
    assert values.tolist() == [expected[:3], expected[3:]]
    assert one_by_one.integer(0, 1000) == at_once.integer(0, 1000)


def test_every_value_of_the_range_is_drawn_about_as_often():
    counts = Counter(Stream(1).integers(10, 15, (5000,)).tolist())
    assert sorted(counts) == [10, 11, 12, 13, 14]
    # Five standard deviations, sqrt(5000 * 0.2 * 0.8) = 28.3, about the mean.
    assert all(abs(count - 1000) < 142 for count in counts.values())


def test_each_part_of_the_key_matters():
    first = {Stream(*key).integer(0, 1 << 32) for key in [(0, 1), (1, 0), (1,), (0, 0, 1), (0, 2), ()]}
    assert len(first) == 6


def test_shuffling_keeps_the_items():
    items = list(range(20))
    shuffled = Stream(2).shuffled(items)
    assert shuffled != items
    assert sorted(shuffled) == items == list(range(20))
