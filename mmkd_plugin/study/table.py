"""Tables of a study: on the console, and as Markdown for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from mmkd_plugin.study.runs import Outcome
from mmkd_plugin.study.tasks import Task, task_of


def columns(task: Task, relative: bool = False) -> tuple[str, ...]:
    """Heads of the columns of :func:`rows`.

    Args:
        task: What was measured.
        relative: As for :func:`rows`.
    """
    time = 'time per iteration' if relative else 'seconds per iteration'
    return ('model', 'seeds', *task.metrics, 'gain', time, 'weights')


def rows(
    groups: Sequence[Sequence[Outcome]], baseline: str | None = None, relative: bool = False
) -> list[tuple[str, ...]]:
    """One row per model, its seeds summarised.

    Args:
        groups: The outcomes of each model, one per seed.
        baseline: Name of the model that gains are measured from.
        relative: Whether times are given as multiples of the baseline's, which other machines share, not in seconds.

    Returns:
        Cells in the order of :func:`columns`: metrics in points as mean and sample deviation over seeds.
    """
    base = next((group for group in groups if group[0].name == baseline), None)
    unit = _seconds(base) if relative and base is not None else 1.0
    metrics = list(task_of(groups[0][0].metrics).metrics.values())
    table: list[tuple[str, ...]] = []
    after = False
    for group in groups:
        first = group[0]
        gain = '-'
        # The teacher, which comes before, is no other training of the student.
        if base is not None and after and len(group) == len(base):
            differences = [_value(one, metrics[0]) - _value(other, metrics[0]) for one, other in zip(group, base)]
            gain = _spread(differences, signed=True)
        after = after or group is base
        seconds = _seconds(group)
        table.append(
            (
                first.name,
                str(len(group)),
                *(_spread([_value(outcome, metric) for outcome in group]) for metric in metrics),
                gain,
                (f'{seconds / unit:.2f} x' if relative else f'{seconds:.3f}') if seconds else '-',
                f'{first.checkpoint_bytes / 2**20:.2f} MiB',
            )
        )
    return table


def _seconds(group: Sequence[Outcome]) -> float:
    return statistics.median(outcome.seconds_per_iteration for outcome in group)


def _value(outcome: Outcome, metric: str) -> float:
    return 100 * outcome.metrics[metric]


def _spread(values: Sequence[float], signed: bool = False) -> str:
    """Mean, and the sample deviation where there are several."""
    mean = f'{statistics.mean(values):{"+" if signed else ""}.1f}'
    return mean if len(values) == 1 else f'{mean} ± {statistics.stdev(values):.1f}'


def console_table(title: str, cells: Sequence[Sequence[str]], heads: Sequence[str]) -> Table:
    """For the console."""
    table = Table(title=title, title_justify='left')
    for index, column in enumerate(heads):
        table.add_column(column, justify='left' if index == 0 else 'right')
    for row in cells:
        table.add_row(*row)
    return table


def markdown_table(cells: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """For a README."""
    lines = ['| ' + ' | '.join(heads) + ' |', '| --- |' + ' ---: |' * (len(heads) - 1)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in cells]) + '\n'
