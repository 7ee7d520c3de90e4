"""One page of HTML about runs, which needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from mmkd_plugin.study.report.charts import chart, colours
from mmkd_plugin.study.report.images import picture_files, pictures
from mmkd_plugin.study.report.run import RESULTS, Run, metric_names
from mmkd_plugin.study.report.tables import (
    Built,
    cost_notes,
    model_table,
    notes,
    number_table,
    run_table,
    time_notes,
    time_table,
)
from mmkd_plugin.study.report.written import config_text
from mmkd_plugin.version import __version__

TEMPLATE = Path(__file__).with_name('page.html')
SECTIONS = {
    'runs': 'Runs',
    'curves': 'Curves',
    'cost': 'Parameters, FLOPs and time',
    'check': 'Self-check',
    'pictures': 'Pictures',
    'config': 'Block and config',
}
CHARTS = 60
"""The most charts of a group, such as those of the metrics of each class."""


def report_page(runs: Sequence[Run], build: bool, say: Callable[[str], object]) -> str:
    """Write the page.

    Args:
        runs: At least one.
        build: Whether models are built, for their parameters and operations; that runs the code that a config names.
        say: Called with what is done, a line each.

    Returns:
        HTML.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding='utf-8'))
    shown = colours([run.distilled for run in runs])
    say('drawing the curves')
    groups = _groups(runs, shown)
    found_pictures, picture_notes = pictures(*_picture_files(runs))
    built = _build(runs, say) if build else {}
    return template.render(
        title=_title(runs),
        period=_period(runs),
        version=__version__,
        sections=SECTIONS,
        runs=run_table(runs),
        notes=notes(runs),
        legend=[dict(name=run.name, colour=colour, dashed=not run.distilled) for run, colour in zip(runs, shown)],
        groups=groups,
        numbers=number_table(runs),
        models=model_table(runs, built),
        model_notes=cost_notes(built, build),
        times=time_table(runs),
        time_notes=time_notes(runs),
        checks=[
            dict(run=run.name, head=text.split('\n', 1)[0], text=text) for run in runs for text in run.logged.checks
        ],
        pictures=found_pictures,
        picture_notes=picture_notes,
        configs=[_config(run, built.get(run.name)) for run in runs],
    )


def _groups(runs: Sequence[Run], shown: Sequence[str]) -> list[dict[str, Any]]:
    """The charts, one for each name that a run has logged, with the curves of all runs that have it."""
    names = list(dict.fromkeys(name for run in runs for name in run.logged.scalars))
    weights = [name for name in names if name.startswith('distill.') and name.endswith('_weight')]
    terms = [name for name in names if name.startswith('distill.') and name not in weights]
    task = [name for name in names if 'loss' in name and name not in terms]
    rest = [name for name in names if name not in (*weights, *terms, *task)]
    kinds = (
        ('Metrics', metric_names(runs), 'metrics', 'No metric was logged.'),
        ('Terms of the distillation', terms, 'scalars', 'No run is distilled.'),
        ("Weights that loss_weight='auto' has found", weights, 'scalars', ''),
        ('Losses of the task, and the sum of all', task, 'scalars', 'No loss was logged.'),
        ('Everything else that was logged', rest, 'scalars', ''),
    )
    groups = []
    for head, wanted, kind, empty in kinds:
        if not wanted and not empty:
            continue
        charts = []
        for name in wanted[:CHARTS]:
            curves = [
                (colour, not run.distilled, getattr(run.logged, kind)[name])
                for run, colour in zip(runs, shown)
                if name in getattr(run.logged, kind)
            ]
            charts.append(dict(name=name, svg=chart(curves, f'{kind} {name}', wide=kind == 'scalars')))
        left_out = wanted[CHARTS:]
        if left_out:
            empty = f'{len(left_out)} more are not drawn, from {left_out[0]} on; their numbers stand below.'
        groups.append(
            dict(head=head, charts=charts, folded=wanted is rest, empty=empty if left_out or not charts else '')
        )
    return groups


def _picture_files(runs: Sequence[Run]) -> tuple[list[tuple[str, Path]], int]:
    """Those of the runs, and of the comparisons that they are part of."""
    folders = {run.folder: run.name for run in runs}
    for run in runs:
        for parent in (run.folder.parent, run.folder.parent.parent):
            if run.row and (parent / RESULTS).is_file():
                folders.setdefault(parent, parent.name)
    files, earlier = [], 0
    for folder, name in folders.items():
        of_folder, replaced = picture_files(folder)
        files += [(name, file) for file in of_folder]
        earlier += replaced
    return files, earlier


def _build(runs: Sequence[Run], say: Callable[[str], object]) -> Built:
    """Sizes of the models of each run, and its config expanded; equal models are built once."""
    from mmkd_plugin.study.report.models import expanded_text, model_sizes

    built: Built = {}
    known: dict[str, Any] = {}
    for run in runs:
        if run.config is None or 'model' not in run.config:
            continue
        # What is counted depends on these alone; runs of several seeds share them.
        key = repr([run.config.get(name) for name in ('model', 'distill', 'test_dataloader', 'val_dataloader')])
        if key not in known:
            say(f'building the models of {run.name}')
            block = isinstance(run.config.get('distill'), dict)
            known[key] = (model_sizes(run.config), expanded_text(run.config) if block else ('', ''))
        built[run.name] = known[key]
    return built


def _config(run: Run, built: Any) -> dict[str, str]:
    expanded, reason = built[1] if built else ('', '')
    block = (run.config or {}).get('distill')
    return dict(
        run=run.name,
        block=f'distill = {config_text(block)}' if block else '',
        text=run.logged.config,
        expanded=expanded,
        reason=reason,
    )


def _title(runs: Sequence[Run]) -> str:
    distilled, alone = ([run.name for run in runs if run.distilled is kind] for kind in (True, False))
    if not distilled:
        return f'Training of {", ".join(alone)}'
    return f'Distillation of {", ".join(distilled)}' + (f', beside {", ".join(alone)}' if alone else '')


def _period(runs: Sequence[Run]) -> str:
    """When the runs were made."""
    first = min((run.logged.first for run in runs if run.logged.first), default='')
    last = max((run.logged.last for run in runs if run.logged.last), default='')
    return f'Logged from {first} to {last}' if first else 'Their logs hold no date'
