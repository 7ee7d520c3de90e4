"""The results as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkd_plugin.study.benchmark.measure import ALONE, FLOOR, OURS, RAZOR
from mmkd_plugin.study.benchmark.results import Row
from mmkd_plugin.study.benchmark.table import NAMES, models_text, quartiles, ratios
from mmkd_plugin.study.pictures.canvas import save

COLOURS = {FLOOR: '#b0b0b0', OURS: '#1f77b4', RAZOR: '#ff7f0e'}
"""Of the sides."""

_BAR = 0.26


def picture(rows: Sequence[Row], out: Path) -> Path:
    """Draw time and memory in multiples of the student alone, with the quartiles of the rounds.

    Args:
        rows: Those with a measurement of the student alone are drawn.
        out: PNG to write.

    Returns:
        The path written.

    Raises:
        DistillError: If it cannot be written there.
    """
    rows = [row for row in rows if ALONE in row.measured.sides]
    figure = Figure(figsize=(11, 1.4 + 0.62 * len(rows)), layout='constrained')
    time, memory = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for height, row in enumerate(rows):
        sides = row.measured.sides
        for index, name in enumerate(COLOURS):
            if name not in sides:
                continue
            place = height + (index - 1) * _BAR
            lower, median, upper = quartiles(ratios(sides[name], sides[ALONE]))
            error = [[median - lower], [upper - median]]
            time.barh(place, median, _BAR, color=COLOURS[name], xerr=error, ecolor='#333333')
            _label(time, upper, place, f'{median:.2f}')
            peak = sides[name].peak / sides[ALONE].peak
            memory.barh(place, peak, _BAR, color=COLOURS[name])
            _label(memory, peak, place, f'{peak:.2f}')
    time.set_yticks(range(len(rows)), [f'{row.measured.methods}\n{models_text(row)}' for row in rows], fontsize=8)
    time.invert_yaxis()
    for axis, title in ((time, 'time of a step'), (memory, 'its peak memory')):
        axis.axvline(1, color='black', linewidth=1)
        axis.set_xlim(0, axis.get_xlim()[1] * 1.08)
        axis.set_xlabel(f'{title}, that of the student alone = 1', fontsize=9)
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='x', alpha=0.3)
        axis.set_axisbelow(True)
    handles = [time.barh(0, 0, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, [NAMES[name] for name in COLOURS], loc='outside upper center', ncols=3, frameon=False)
    return save(figure, out)


def _label(axis: Axes, end: float, place: float, text: str) -> None:
    axis.annotate(text, (end, place), (3, 0), textcoords='offset points', va='center', fontsize=7)
