"""The tables of a report, a row of texts each; the first holds the heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Dict, List, Tuple

from mmkd_plugin.study.report.charts import POINTS
from mmkd_plugin.study.report.run import Run, gain, metric_names

if TYPE_CHECKING:
    from mmkd_plugin.study.report.models import ModelSize

Table = List[Tuple[str, ...]]
Built = Dict[str, Tuple[List['ModelSize'], Tuple[str, str]]]
"""Sizes of the models of a run by its name; its expanded config, or the reason why there is none."""


def run_table(runs: Sequence[Run]) -> Table:
    """What each run is, and what it has come to."""
    metrics = metric_names(runs)[:1]
    alone = [run for run in runs if not run.distilled]
    gains = bool(metrics and alone and len(alone) < len(runs))
    heads = ['run', 'teacher']
    for metric in metrics:
        heads += [metric, *(['over the undistilled'] if gains else []), 'best']
    table: Table = [(*heads, 'iterations', 'begun', 'starts')]
    for run in runs:
        logged = run.logged
        row = [run.name, 'yes' if run.distilled else 'no']
        for metric in metrics:
            points = logged.metrics.get(metric, {})
            finite = [step for step in points if math.isfinite(points[step])]
            best = max(finite, key=lambda step: points[step], default=None)
            row.append(_value_at(points, max(points, default=None)))
            if gains:
                difference = gain(run, alone, metric) if run.distilled else None
                row.append('-' if difference is None else f'{difference[1]:+.4g} at {difference[0]:,}')
            row.append(_value_at(points, best))
        table.append((*row, f'{logged.iterations:,}', logged.first or '-', str(logged.starts)))
    return table


def notes(runs: Sequence[Run]) -> list[str]:
    """What is to be said of the logs."""
    found = []
    alone = [run for run in runs if not run.distilled]
    if not alone:
        found.append(
            'No run without a teacher was given; name its work folder too, to see what the distillation brings.'
        )
    elif len(alone) > 1:
        found.append('"Over the undistilled" is the difference to the mean of the runs without a teacher.')
    for run in runs:
        if run.logged.starts > 1:
            found.append(
                f'{run.name} was started {run.logged.starts} times; what a later start has logged again replaces what '
                'an earlier one had.'
            )
        if run.logged.broken:
            lines = 'line of its logs is' if run.logged.broken == 1 else 'lines of its logs are'
            found.append(f'{run.name}: {run.logged.broken} {lines} cut off or damaged, and left out.')
        if run.config is None:
            found.append(f'{run.name} has no config beside its log that can be read without running it.')
    longest = max(len(points) for run in runs for points in run.logged.scalars.values())
    if longest > POINTS:
        found.append(
            f'A curve of more than {POINTS} lines is drawn with means of neighbours; the tables are of all lines.'
        )
    return found


def number_table(runs: Sequence[Run]) -> Table:
    """First, last, least and greatest value of everything that is drawn, of all lines of the log."""
    table: Table = [('name', 'run', 'lines', 'first', 'last', 'least', 'greatest')]
    for kind in ('metrics', 'scalars'):
        names = metric_names(runs) if kind == 'metrics' else dict.fromkeys(n for r in runs for n in r.logged.scalars)
        for name in names:
            for run in runs:
                points = getattr(run.logged, kind).get(name)
                if points:
                    values = [points[step] for step in sorted(points)]
                    finite = [value for value in values if math.isfinite(value)] or [math.nan]
                    shown = (values[0], values[-1], min(finite), max(finite))
                    table.append((name, run.name, f'{len(values):,}', *map(number, shown)))
    return table


def model_table(runs: Sequence[Run], built: Built) -> Table:
    """Parameters and operations of students and teachers, built here or as a comparison has counted them."""
    table: Table = [('run', 'model', 'class', 'parameters', 'FLOPs', 'image')]
    for run in runs:
        sizes = built[run.name][0] if run.name in built else []
        for size in sizes:
            counts = ('-' if size.parameters is None else f'{size.parameters:,}', _giga(size.flops))
            image = '-' if size.flops is None else f'{size.size[1]} x {size.size[0]}'
            table.append((run.name, size.role, size.kind or '-', *counts, image))
        if not any(size.parameters is not None for size in sizes if size.role == 'student'):
            compared = run.compared
            parameters = compared.get('parameters')
            if isinstance(parameters, int):
                counts = (f'{parameters:,}', _giga(compared.get('flops')))
                table.append((run.name, 'student, by the comparison', '-', *counts, 'first of the test data'))
    for run in runs:
        if all(row[0] != run.name for row in table[1:]):
            table.append((run.name, *('-',) * 5))
    return table


def cost_notes(built: Built, build: bool) -> list[str]:
    """Why numbers are missing, and what they are."""
    if not build:
        return ['No model was built (--no-models).']
    found = [
        'FLOPs are multiplications with an addition for one made-up image of the size given, without what follows the '
        'heads, as MMEngine counts them.'
    ]
    for name, (sizes, _) in built.items():
        found += [f'{name}, {size.role}: {size.reason.rstrip(".")}.' for size in sizes if size.reason]
    return list(dict.fromkeys(found))


def time_table(runs: Sequence[Run]) -> Table:
    """Time of a training step and at inference, beside the first undistilled run's."""
    alone = next((run for run in runs if not run.distilled), None)
    base = alone.seconds_per_step if alone else None
    compared = any(run.compared for run in runs)
    heads = ['run', 'seconds per step', 'to the undistilled', 'of it waiting for data', 'peak memory, MB']
    heads += ['seconds per validation batch', 'images of it']
    heads += ['time per image, to the student alone'] if compared else []
    table: Table = [tuple(heads)]
    for run in runs:
        seconds = run.seconds_per_step
        ratio = seconds / base if seconds is not None and base and run is not alone else None
        memory = run.logged.scalars.get('memory', {})
        row = [
            run.name,
            _or_dash(seconds, '.4g'),
            '-' if ratio is None else f'{ratio:.2f} x',
            _or_dash(run.median('data_time'), '.3g'),
            f'{max(memory.values()):,.0f}' if memory else '-',
            _or_dash(run.seconds_per_validation_batch, '.4g'),
            _batch(run),
        ]
        if compared:
            image = run.compared.get('time_per_image')
            row.append(f'{image:.2f} x' if isinstance(image, (int, float)) else '-')
        table.append(tuple(row))
    return table


def time_notes(runs: Sequence[Run]) -> list[str]:
    """What the times are."""
    found = [
        'The time of a step is the median of the lines of the log, that of a validation batch the median of the '
        'validations, data and all that follows the heads included. Runs that were not made side by side on an idle '
        'machine differ by themselves.'
    ]
    if any('time_per_image' in run.compared for run in runs):
        found.append('The time per image is what tools/compare.py has measured side by side (results.json).')
    return found


def number(value: float) -> str:
    """A number as it is shown."""
    return f'{value:.5g}'


def _value_at(points: Mapping[int, float], step: int | None) -> str:
    return '-' if step is None else f'{number(points[step])} at {step:,}'


def _batch(run: Run) -> str:
    loader = (run.config or {}).get('val_dataloader')
    size = loader.get('batch_size') if isinstance(loader, dict) else None
    return str(size) if isinstance(size, int) and run.logged.validation_seconds else '-'


def _giga(flops: object) -> str:
    return f'{flops / 1e9:.4g} G' if isinstance(flops, (int, float)) else '-'


def _or_dash(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)
