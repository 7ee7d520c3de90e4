"""The runs of a report: which folders, under which names, and what they are."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.report.logs import Logged, parsed, read_logs, scalar_files
from mmkd_plugin.study.report.written import written_config

MAIN = ('coco/bbox_mAP', 'mIoU', 'pascal_voc/mAP')
"""Metrics that are shown first, in this order."""
RESULTS = 'results.json'
"""What a comparison leaves beside the folders of its rows."""


@dataclasses.dataclass
class Run:
    """One run of a report.

    Attributes:
        name: Shown; no other run has it.
        folder: Work folder.
        logged: What its logs hold.
        config: Entries of its config, None where it cannot be read as literals.
        row: Row of the comparison that it is part of; empty where it is of none.
    """

    name: str
    folder: Path
    logged: Logged
    config: dict[str, Any] | None
    row: str = ''

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part: a block that is on, or terms in the log."""
        if any(name.startswith('distill.') for name in self.logged.scalars):
            return True
        block = (self.config or {}).get('distill')
        return isinstance(block, dict) and bool(block.get('methods', True))

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the lines of the log."""
        return self.median('time')

    @property
    def seconds_per_validation_batch(self) -> float | None:
        """Median over the validations."""
        return _median(self.logged.validation_seconds)

    def median(self, name: str) -> float | None:
        """Median of a scalar over the lines of the log."""
        return _median(list(self.logged.scalars.get(name, {}).values()))

    @property
    def compared(self) -> dict[str, Any]:
        """What a comparison has measured of its row, nothing where it is of none."""
        if not self.row:
            return {}
        for parent in (self.folder.parent.parent, self.folder.parent):
            for entry in _results(parent / RESULTS):
                if str(entry.get('model')).replace(' ', '_') == self.row:
                    return entry
        return {}


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of work folders.

    Args:
        folders: Each that of a run, of a row of a comparison, or of a whole comparison.

    Returns:
        The runs, each once, in the order given.

    Raises:
        DistillError: If a folder does not exist or holds no logs of a training.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            what = 'is no folder' if folder.exists() else 'does not exist'
            raise DistillError(f'The work folder "{folder}" {what}; give the folder that a training wrote its logs to.')
        runs = [run for place in _places(folder) if (run := _read(place)) is not None]
        if not runs:
            raise DistillError(
                f'"{folder}" holds no log of a training (<time>/vis_data/scalars.json); give the work folder of a run, '
                'with LocalVisBackend among the vis_backends of its config, that has come to its first line of the log.'
            )
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    runs = list(found.values())
    for run, name in zip(runs, _names([run.folder for run in runs])):
        run.name = name
    return runs


def metric_names(runs: Sequence[Run]) -> list[str]:
    """All metrics of the runs, the main one first."""
    names = list(dict.fromkeys(name for run in runs for name in run.logged.metrics))
    return sorted(names, key=lambda name: (MAIN.index(name) if name in MAIN else len(MAIN), names.index(name)))


def gain(run: Run, others: Sequence[Run], metric: str) -> tuple[int, float] | None:
    """How much better a run is than the mean of others.

    Args:
        run: The run.
        others: What it is compared with.
        metric: Name of the metric.

    Returns:
        The last iteration at which all were validated, and the difference there; None where there is none.
    """
    all_points = [each.logged.metrics.get(metric, {}) for each in (run, *others)]
    common = set(all_points[0]).intersection(*all_points[1:])
    if not others or not common:
        return None
    last = max(common)
    return last, all_points[0][last] - statistics.mean(points[last] for points in all_points[1:])


def _places(folder: Path) -> list[Path]:
    """The folders of runs in a folder: itself, those of its seeds, or those of its rows' seeds."""
    if scalar_files(folder):
        return [folder]
    return sorted(path for pattern in ('seed*', '*/seed*') for path in folder.glob(pattern) if path.is_dir())


def _read(folder: Path) -> Run | None:
    logged = read_logs(folder)
    if not logged.scalars:
        return None
    try:
        config = written_config(logged.config) if logged.config else None
    except ValueError:
        config = None
    place = folder.resolve()
    of_comparison = any((parent / RESULTS).is_file() for parent in (place.parent, place.parent.parent))
    row = place.parent.name if place.name.startswith('seed') else place.name
    return Run(place.name, place, logged, config, row if of_comparison else '')


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell all of them apart; a seed says nothing without its row."""
    depth = 1
    while True:
        names = ['/'.join(folder.parts[-depth - folder.name.startswith('seed') :]) for folder in folders]
        if len(set(names)) == len(names) or depth > max(len(folder.parts) for folder in folders):
            return names
        depth += 1


def _results(file: Path) -> list[dict[str, Any]]:
    try:
        entries = parsed(file.read_text(encoding='utf-8', errors='replace'))
    except OSError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
