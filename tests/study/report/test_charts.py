"""A chart shows the numbers that it is given, and nothing of it lies elsewhere."""

from __future__ import annotations

import re
import statistics
from xml.etree import ElementTree

import pytest

from mmkd_plugin.study.report.charts import POINTS, chart, colours, thinned


def drawn(svg: str, colour: str) -> list[tuple[float, float]]:
    """Corners of the curve of a colour, in the picture's units."""
    root = ElementTree.fromstring(svg)
    found = [
        path for path in root.iter('path') if f'stroke: {colour}' in path.get('style', '') and path.get('clip-path')
    ]
    assert len(found) == 1
    return [(float(x), float(y)) for x, y in re.findall(r'[ML] ([-\d.]+) ([-\d.]+)', found[0].get('d') or '')]


def test_curve_has_the_heights_of_its_values() -> None:
    values = {10: 1.0, 20: 3.0, 30: 2.0, 50: 1.5}
    corners = drawn(chart([('#1f77b4', False, values)], ''), '#1f77b4')
    assert len(corners) == 4
    (x0, y0), (x1, y1) = corners[:2]
    for (step, value), (x, y) in zip(values.items(), corners):
        assert (x - x0) / (x1 - x0) == pytest.approx((step - 10) / 10, abs=1e-4)
        # Upwards on the page is downwards in its coordinates.
        assert (y - y0) / (y1 - y0) == pytest.approx((value - 1) / 2, abs=1e-4)
    assert x1 > x0
    assert y1 < y0


def test_curves_of_several_runs_share_the_axes() -> None:
    svg = chart([('#1f77b4', False, {1: 1.0, 2: 2.0}), ('#555555', True, {1: 2.0, 2: 1.0})], '')
    distilled, alone = drawn(svg, '#1f77b4'), drawn(svg, '#555555')
    assert [corner[1] for corner in distilled] == [corner[1] for corner in alone][::-1]


def test_nothing_lies_elsewhere() -> None:
    svg = chart([('#1f77b4', False, {1: 1.0, 2: 2.0})], 'a')
    assert 'http' not in svg
    assert '<style' not in svg
    names = re.findall(r'id="([^"]+)"', svg)
    assert len(set(names)) == len(names)
    assert {name for pair in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg) for name in pair if name} <= set(names)
    # On one page the names of two charts differ, and the same chart is the same text again.
    assert not set(names) & set(re.findall(r'id="([^"]+)"', chart([('#1f77b4', False, {1: 1.0, 2: 2.0})], 'b')))
    assert svg == chart([('#1f77b4', False, {1: 1.0, 2: 2.0})], 'a')


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 0.0, 1e300, -1e300, 5e-324])
def test_any_number_can_be_drawn(value: float) -> None:
    assert chart([('#1f77b4', False, {1: 1.0, 2: value, 3: 2.0})], '').startswith('<svg')
    assert chart([('#1f77b4', False, {1: value})], '', wide=True).startswith('<svg')


def test_wide_ranges_are_logarithmic() -> None:
    corners = drawn(chart([('#1f77b4', False, {1: 1000.0, 2: 10.0, 3: 0.1})], '', wide=True), '#1f77b4')
    heights = [y for _, y in corners]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=1e-3)


def test_long_curves_are_means_of_neighbours() -> None:
    points = {step: float(step % 7) for step in range(1, 3 * POINTS + 1)}
    steps, values = thinned(points)
    assert len(steps) == POINTS
    assert steps[:2] == [2.0, 5.0]
    assert values[1] == pytest.approx((4 + 5 + 6) / 3)
    assert statistics.mean(values) == pytest.approx(statistics.mean(points.values()))
    short = {1: 2.0, 5: 3.0}
    assert thinned(short) == ([1, 5], [2.0, 3.0])


def test_undistilled_runs_have_other_colours() -> None:
    found = colours([True, False, True, False])
    assert len(set(found)) == 4
