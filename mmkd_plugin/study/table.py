"""Tables of a study: on the console, and as Markdown for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.table import Table

from mmkd_plugin.study.cost import Cost
from mmkd_plugin.study.runs import Outcome
from mmkd_plugin.study.tasks import Task, task_of

SIZES = ('weights', 'parameters', 'FLOPs')
TIMES = ('time per iteration', 'time per image')
"""Heads of times in multiples of the student's alone: a training iteration, and the prediction of one test image."""


def columns(task: Task, relative: bool = False) -> tuple[str, ...]:
    """Heads of the columns of :func:`rows`.

    Args:
        task: What was measured.
        relative: As for :func:`rows`.
    """
    times = TIMES if relative else ('seconds per iteration', 'milliseconds per image')
    return ('model', 'seeds', *task.metrics, 'gain', 'verdict', times[0], *SIZES, times[1])


def rows(
    groups: Sequence[Sequence[Outcome]],
    baseline: str | None = None,
    relative: bool = False,
    costs: Mapping[str, Cost] | None = None,
) -> list[tuple[str, ...]]:
    """One row per model, its seeds summarised.

    Args:
        groups: The outcomes of each model, one per seed.
        baseline: Name of the model that gains are measured from.
        relative: Whether times are given as multiples of the baseline's, which other machines share, not in seconds.
        costs: What each model costs when it is used, by name; what is not there is not known.

    Returns:
        Cells in the order of :func:`columns`: metrics in points as mean and sample deviation over seeds.
    """
    base = next((group for group in groups if group[0].name == baseline), None)
    unit = _seconds(base) if relative and base is not None else 1.0
    known = costs or {}
    base_cost = known.get(baseline or '') if relative else None
    metrics = list(task_of(groups[0][0].metrics).metrics.values())
    table: list[tuple[str, ...]] = []
    after = False
    for group in groups:
        first = group[0]
        gain = said = '-'
        # The teacher, which comes before, is no other training of the student.
        if base is not None and after and len(group) == len(base):
            differences = gains(group, base, metrics[0])
            gain, said = spread(differences, signed=True), verdict(differences)
        after = after or group is base
        seconds = _seconds(group)
        table.append(
            (
                first.name,
                str(len(group)),
                *(spread([_value(outcome, metric) for outcome in group]) for metric in metrics),
                gain,
                said,
                (f'{seconds / unit:.2f} x' if relative else f'{seconds:.3f}') if seconds else '-',
                f'{first.checkpoint_bytes / 2**20:.2f} MiB',
                *_cost_cells(known.get(first.name), base_cost),
            )
        )
    return table


def gains(group: Sequence[Outcome], base: Sequence[Outcome], metric: str) -> list[float]:
    """What each seed gained over the same seed of another model, in points."""
    return [_value(one, metric) - _value(other, metric) for one, other in zip(group, base)]


def verdict(differences: Sequence[float]) -> str:
    """What the gains of several seeds amount to.

    Args:
        differences: Gain of each seed over the same seed of the student alone.

    Returns:
        Whether the mean gain exceeds the sample deviation of the gains, and in which direction; one seed has no
        spread, so it says nothing.
    """
    if len(differences) < 2:
        return '-'
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    if abs(mean) <= deviation:
        return 'no difference beyond the spread'
    return 'gains' if mean > 0 else 'loses'


def _cost_cells(cost: Cost | None, base: Cost | None) -> tuple[str, str, str]:
    """Parameters, operations and the time for an image, which is a multiple of the base's where there is one."""
    if cost is None:
        return '-', '-', '-'
    time = f'{1000 * cost.seconds_per_image:.1f}'
    if base is not None:
        time = f'{cost.seconds_per_image / base.seconds_per_image:.2f} x'
    return f'{cost.parameters / 1e6:.2f} M', '-' if cost.flops is None else f'{cost.flops / 1e9:.2f} G', time


def _seconds(group: Sequence[Outcome]) -> float:
    return statistics.median(outcome.seconds_per_iteration for outcome in group)


def _value(outcome: Outcome, metric: str) -> float:
    return 100 * outcome.metrics[metric]


def spread(values: Sequence[float], signed: bool = False) -> str:
    """Mean, and the sample deviation where there are several.

    Args:
        values: At least one.
        signed: Whether a plus is written.
    """
    mean = f'{statistics.mean(values):{"+" if signed else ""}.1f}'
    return mean if len(values) == 1 else f'{mean} ± {statistics.stdev(values):.1f}'


def console_table(title: str, cells: Sequence[Sequence[str]], heads: Sequence[str]) -> Table:
    """For the console."""
    table = Table(title=title, title_justify='left')
    for index, column in enumerate(heads):
        table.add_column(column, justify='left' if index == 0 else 'right', overflow='fold')
    for row in cells:
        table.add_row(*row)
    return table


def console_tables(task: Task, cells: Sequence[Sequence[str]]) -> list[Table]:
    """The rows of a study for the console, in two tables, since a terminal is too narrow for one.

    Args:
        task: What was measured.
        cells: What :func:`rows` gives, with times in seconds.

    Returns:
        What each model reached, and what it costs.
    """
    heads = columns(task)
    cut = heads.index('verdict') + 1
    reached = console_table(
        f'{task.measure} in points; ± is the deviation over seeds', [row[:cut] for row in cells], heads[:cut]
    )
    cost = console_table(
        'what it costs to train, to keep and to use', [(row[0], *row[cut:]) for row in cells], (heads[0], *heads[cut:])
    )
    return [reached, cost]


def markdown_table(cells: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """For a README."""
    lines = ['| ' + ' | '.join(heads) + ' |', '| --- |' + ' ---: |' * (len(heads) - 1)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in cells]) + '\n'
