"""Curves as pictures that stand in the page itself."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

POINTS = 400
"""The most points of a curve; of a longer one each is the mean of several lines of the log."""
COLOURS = (
    '#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#8c564b', '#e377c2', '#17becf', '#bcbd22', '#003f5c'
)  # fmt: skip
"""Of distilled runs, in turn."""
ALONE = ('#555555', '#999999', '#333333', '#bbbbbb')
"""Of runs without a teacher."""
_SIZE = (3.6, 2.3)
_FAR = 100.0
"""Values that span more than this factor get a logarithmic scale where one is of use."""


def colours(distilled: Sequence[bool]) -> list[str]:
    """A colour for each run.

    Args:
        distilled: Whether each is a distilled one.
    """
    counts = {True: 0, False: 0}
    found = []
    for kind in distilled:
        palette = COLOURS if kind else ALONE
        found.append(palette[counts[kind] % len(palette)])
        counts[kind] += 1
    return found


def thinned(points: Mapping[int, float]) -> tuple[list[float], list[float]]:
    """A curve of few enough points to be drawn.

    Args:
        points: Values by iteration.

    Returns:
        Iterations and values: all of them, or means of neighbours.
    """
    steps = sorted(points)
    size = -(-len(steps) // POINTS)
    blocks = [steps[start : start + size] for start in range(0, len(steps), max(size, 1))]
    return (
        [sum(block) / len(block) for block in blocks],
        [sum(points[step] for step in block) / len(block) for block in blocks],
    )


def chart(curves: Sequence[tuple[str, bool, Mapping[int, float]]], salt: str, wide: bool = False) -> str:
    """Draw curves.

    No text of a run gets into the picture but numbers: its name stands in the page, which escapes it.

    Args:
        curves: Colour, whether the line is dashed, and values by iteration.
        salt: Tells what the picture defines apart from that of others on the page.
        wide: Whether values that span orders of magnitude are drawn on a logarithmic scale.

    Returns:
        An ``<svg>`` element that refers to nothing outside of it and is as wide as its place.
    """
    settings: Any = {'svg.fonttype': 'none', 'svg.hashsalt': salt, 'font.size': 9, 'text.usetex': False}
    text = io.StringIO()
    with matplotlib.rc_context(settings):
        figure = _drawn(curves, wide)
        figure.savefig(text, format='svg', metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    return _inline(text.getvalue())


def _drawn(curves: Sequence[tuple[str, bool, Mapping[int, float]]], wide: bool) -> Figure:
    figure = Figure(figsize=_SIZE, layout='constrained')
    axis = figure.subplots()
    for colour, dashed, points in curves:
        steps, values = thinned(points)
        # A curve of few points would not be seen, and one of a single point would not be there.
        marker = 'o' if len(steps) < 30 else None
        axis.plot(steps, values, color=colour, linestyle='--' if dashed else '-', lw=1.4, marker=marker, ms=3)
    numbers = [value for _, _, points in curves for value in points.values()]
    positive = all(math.isfinite(value) and value > 0 for value in numbers)
    if wide and numbers and positive and max(numbers) > _FAR * min(numbers):
        axis.set_yscale('log')
    axis.set_xlabel('iteration')
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
    return figure


def _inline(svg: str) -> str:
    """An SVG file as an element of a page: without addresses, a style of its own, and names of groups."""
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S)
    svg = re.sub(r'<style.*?</style>', '', svg, flags=re.S)
    svg = re.sub(r'<!--.*?-->', '', svg, flags=re.S)
    head, body = svg.split('>', 1)
    box = re.search(r'viewBox="[\d. -]+"', head)
    assert box is not None
    # One family for all texts of the page, instead of matplotlib's list in each.
    body = re.sub(r'font-family: [^;"]*', 'font-family: sans-serif', body)
    body = re.sub(r'<g id="[^"]*"', '<g', body).replace('xlink:href="#', 'href="#')
    return f'<svg {box[0]} role="img">{body.strip()}'
