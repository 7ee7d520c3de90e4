"""The results as tables: ratios of the rounds, their median and the quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from mmkd_plugin.study.benchmark.measure import ALONE, FLOOR, OURS, RAZOR, Side
from mmkd_plugin.study.benchmark.results import NOTE, Results, Row
from mmkd_plugin.study.table import markdown_table

NAMES = {ALONE: 'alone', FLOOR: 'floor', OURS: 'ours', RAZOR: 'MMRazor'}
"""What the sides are called."""

TIME_HEADS = ('models', 'method', 'images', 'alone', 'floor', 'ours', 'MMRazor', 'ours / floor')
MEMORY_HEADS = ('models', 'method', 'alone', 'floor', 'ours', 'MMRazor', 'ours / floor', 'host syncs')

_NONE = '-'


def ratios(side: Side, base: Side) -> list[float]:
    """How many times longer the steps of a side took than those of another, round by round."""
    return [value / unit for value, unit in zip(side.seconds, base.seconds)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile; all the same for a single value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method='inclusive')
    return lower, median, upper


def time_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Cells in the order of :data:`TIME_HEADS`: seconds of the student alone, and multiples of them."""
    found = []
    for row in rows:
        sides = row.measured.sides
        found.append(
            (
                models_text(row),
                row.measured.methods,
                batches_text(row.batches),
                _seconds(sides.get(ALONE)),
                *(_times(sides, name, ALONE) for name in (FLOOR, OURS, RAZOR)),
                _times(sides, OURS, FLOOR),
            )
        )
    return found


def memory_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Cells in the order of :data:`MEMORY_HEADS`: the peak of a step of the student alone, and multiples of it."""
    found = []
    for row in rows:
        sides = row.measured.sides
        alone = sides.get(ALONE)
        syncs = [str(sides[name].syncs) if name in sides else _NONE for name in NAMES]
        found.append(
            (
                models_text(row),
                row.measured.methods,
                f'{alone.peak / 2**20:,.0f} MiB' if alone else _NONE,
                *(_peaks(sides, name, ALONE) for name in (FLOOR, OURS, RAZOR)),
                _peaks(sides, OURS, FLOOR),
                ' / '.join(syncs),
            )
        )
    return found


def models_text(row: Row) -> str:
    """Teacher and student; what they have in common is said once."""
    student, teacher = row.measured.student, row.measured.teacher
    kind, _, backbone = student.partition(' ')
    start, _, other = teacher.partition(' ')
    return f'{kind}, {other} to {backbone}' if kind == start and backbone else f'{teacher} to {student}'


def batches_text(batches: dict[str, Any]) -> str:
    """What was measured with, in a few words."""
    if 'size' not in batches:
        images = f'{batches.get("batch") or "its"} of its own'
    else:
        height, width = batches['size']
        boxes = f', {batches["boxes"]} boxes' if 'boxes' in batches else ''
        images = f'{batches["batch"]} of {height} x {width}{boxes}'
    others = [batches['precision']] if batches['precision'] != 'float32' else []
    others += [batches['device']] if batches['device'] != 'cpu' else []
    return ', '.join([images, *others])


def markdown(results: Results) -> str:
    """Both tables of a machine, what it is, and why cells are empty."""
    reasons: dict[str, list[str]] = {}
    for row in results.rows:
        for name, reason in row.measured.missing.items():
            reasons.setdefault(f'{NAMES[name]}, `-`: {reason}', []).append(row.measured.methods)
    notes = [f'- {reason} ({", ".join(dict.fromkeys(methods))})' for reason, methods in reasons.items()]
    rounds = sorted({row.rounds for row in results.rows})
    return '\n'.join(
        [
            machine_text(results.machine) + f' {_span(rounds)} rounds.',
            '',
            'Time of a step: seconds of the student alone, and multiples of them.',
            '',
            markdown_table(time_rows(results.rows), TIME_HEADS),
            'Peak memory of a step: of the student alone, and multiples of it. Host syncs of a step: alone / floor / '
            'ours / MMRazor.',
            '',
            markdown_table(memory_rows(results.rows), MEMORY_HEADS),
            *notes,
        ]
    ).rstrip()


def machine_text(machine: dict[str, Any]) -> str:
    """What a machine is, in a sentence or two."""
    parts = [f'{machine["cores"]} cores of {machine["cpu"]}, {machine["threads"]} thread(s)']
    if machine.get('memory_gib'):
        parts.append(f'{machine["memory_gib"]} GiB')
    if machine.get('gpu'):
        parts.insert(0, machine['gpu'])
    versions = ', '.join(f'{name} {machine[name]}' for name in ('torch', 'mmengine', 'mmrazor') if machine.get(name))
    note = str(machine.get(NOTE) or '').rstrip('.')
    return f'{note and note + ": "}{", ".join(parts)}; Python {machine["python"]}, {versions}.'


def _span(values: Sequence[int]) -> str:
    if not values:
        return 'No'
    return str(values[0]) if values[0] == values[-1] else f'{values[0]} to {values[-1]}'


def _seconds(side: Side | None) -> str:
    if side is None:
        return _NONE
    lower, median, upper = quartiles(side.seconds)
    return f'{median:.3g} s ({lower:.3g} to {upper:.3g})'


def _times(sides: dict[str, Side], name: str, base: str) -> str:
    if name not in sides or base not in sides:
        return _NONE
    lower, median, upper = quartiles(ratios(sides[name], sides[base]))
    return f'{median:.2f} ({lower:.2f} to {upper:.2f})'


def _peaks(sides: dict[str, Side], name: str, base: str) -> str:
    return f'{sides[name].peak / sides[base].peak:.2f}' if name in sides and base in sides else _NONE
