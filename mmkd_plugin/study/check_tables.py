"""What a check found, on the console."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmkd_plugin.engine.self_check import step_text
from mmkd_plugin.study.check import Check
from mmkd_plugin.study.first_batches import duration_text, run_seconds, waiting_seconds
from mmkd_plugin.study.turns import StepCost

_MIB = 2**20


def print_check(console: Console, found: Check) -> None:
    """Print what was found, the warnings last.

    Args:
        console: Where it goes.
        found: By :func:`mmkd_plugin.study.check.check`.
    """
    facts = Table(title='config', title_justify='left', show_header=False)
    for name, value in [*found.models.items(), *_data_rows(found)]:
        facts.add_row(escape(name), escape(value))
    console.print(facts)
    if found.report is not None:
        console.print('\nself-check of the first step')
        console.print(step_text(found.report), markup=False, highlight=False, soft_wrap=True, end='')
    costs = Table(title=f'a step, on {found.device}', title_justify='left')
    heads = ('', 'seconds', 'ratio', 'waits for data', 'peak memory', 'ratio', 'of it between steps')
    for index, head in enumerate(heads):
        costs.add_column(head, justify='right' if index else 'left')
    for row in cost_rows(found):
        costs.add_row(*row)
    console.print(costs)
    for line in [*time_lines(found), *_metric_lines(found)]:
        console.print(escape(line), soft_wrap=True)
    for note in found.notes:
        console.print(f'note: {escape(note)}', soft_wrap=True)
    for warning in found.warnings:
        console.print(f'[yellow]warning:[/] {escape(warning)}', soft_wrap=True)
    console.print('Training may begin' + (', but look at the warnings.' if found.warnings else '.'))


def cost_rows(found: Check) -> list[tuple[str, ...]]:
    """A row for each run whose steps were measured; ratios are those to the student alone."""
    return [
        _cost_row(name, cost, found, found.alone)
        for name, cost in (('distilled', found.distilled), ('student alone', found.alone))
        if cost is not None
    ]


def _cost_row(name: str, cost: StepCost, found: Check, alone: StepCost | None) -> tuple[str, ...]:
    other = alone is not None and alone is not cost
    waits = waiting_seconds(cost.seconds, found.data.seconds, found.workers)
    return (
        name,
        f'{cost.seconds:.3f}',
        f'{cost.seconds / alone.seconds:.2f} x' if other and alone is not None else '-',
        f'{waits:.3f}',
        f'{cost.peak / _MIB:,.1f} MiB' if cost.peak else '-',
        f'{cost.peak / alone.peak:.2f} x' if other and alone is not None and alone.peak else '-',
        f'{cost.held / _MIB:,.1f} MiB' if cost.peak else '-',
    )


def time_lines(found: Check) -> list[str]:
    """How long the whole run takes, and what that is made of."""
    cost = found.distilled or found.alone
    if cost is None:
        return []
    total = [
        duration_text(run_seconds(found.iterations, each.seconds, found.data.seconds, found.workers))
        for each in (cost, found.alone)
        if each is not None
    ]
    of = f' ({found.epochs} epochs of {found.per_epoch})' if found.epochs is not None else ''
    alone = f'; the student alone: {total[1]}' if found.distilled is not None and len(total) > 1 else ''
    return [
        f'The whole run takes about {total[0]} for {found.iterations:,} iterations{of}{alone}. That is one process on '
        f'{found.device}, without validation and checkpoints.'
    ]


def _data_rows(found: Check) -> list[tuple[str, str]]:
    """What the data is."""
    data, truth = found.data, found.truth
    workers = _many(found.workers, 'worker') if found.workers else 'no workers'
    return [
        ('training data', f'{_many(found.images, "image")}, {_many(found.per_epoch, "batch")} of {found.batch_size}'),
        ('read', f'{_many(data.read, "batch")}, {data.seconds:.3f} s each with {workers}'),
        ('labels', label_text(truth.kind, truth.counts)),
    ]


def label_text(kind: str, counts: Sequence[int]) -> str:
    """How many boxes or labelled pixels the images have.

    Args:
        kind: What was counted; empty where nothing could be.
        counts: Of each image.
    """
    if not kind:
        return 'not counted, since the batches hold neither boxes nor label maps'
    without = sum(count == 0 for count in counts)
    return (
        f'{sum(counts):,} {kind} in {len(counts)} images: {statistics.mean(counts):,.1f} per image, '
        f'{min(counts):,} to {max(counts):,}; {_many(without, "image")} without any'
    )


def _many(count: int, noun: str) -> str:
    """A number with its noun."""
    plural = 'es' if noun.endswith('ch') else 's'
    return f'{count:,} {noun}{plural if count != 1 else ""}'


def _metric_lines(found: Check) -> list[str]:
    lines = [f'On the validation data: {metric.role} {metric.text}.' for metric in found.metrics]
    if found.metrics and all(metric.role != 'student' for metric in found.metrics):
        lines.append(
            'A student to compare it with needs weights: load_from in the config, or --student. A value near 0 would '
            'mean wrong classes, weights or data.'
        )
    return lines
