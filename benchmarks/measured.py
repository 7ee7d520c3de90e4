"""The committed numbers of comparisons: what each method brought to which student, with which weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.catalogue import CONFIGS
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.compare import AUTO, STUDENT, TEACHER, WHOLE
from mmkd_plugin.study.cost import Cost
from mmkd_plugin.study.runs import Outcome
from mmkd_plugin.study.table import gains
from mmkd_plugin.study.tasks import Task, task_of

RESULTS = CONFIGS.parent / 'docs' / 'results'


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to train the student.

    Attributes:
        name: As tables have it, such as ``'fgd, auto'``.
        outcomes: One for each seed.
        gains: What each seed gained over the student alone, in points.
        time: Of an iteration, in those of the student alone.
    """

    name: str
    outcomes: Sequence[Outcome]
    gains: Sequence[float]
    time: float

    @property
    def label(self) -> str:
        """The methods alone, as the pair is called."""
        return self.name.partition(',')[0]

    @property
    def auto(self) -> bool:
        """Whether the weights found themselves."""
        return self.name.endswith(AUTO)

    @property
    def whole(self) -> bool:
        """Whether the student's own loss was whole, although the method would take a share of it."""
        return WHOLE in self.name

    @property
    def gain(self) -> float:
        """The mean gain in points."""
        return statistics.mean(self.gains)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A comparison.

    Attributes:
        key: Name of its file.
        groups: The outcomes of every row, the teacher's and the student's included, as a table is made of them.
        rows: What was distilled.
        costs: What each model costs when it is used, by name, where that was measured.
    """

    key: str
    groups: Sequence[Sequence[Outcome]]
    rows: Sequence[Row]
    costs: Mapping[str, Cost]

    @property
    def task(self) -> Task:
        """What was measured."""
        return task_of(self.groups[0][0].metrics)

    def row(self, name: str) -> Row | None:
        """The row of a name, if it was measured."""
        return next((row for row in self.rows if row.name == name), None)


def measured(key: str) -> Measured:
    """Read a comparison.

    Args:
        key: Name of its file in ``docs/results``, without the ending.

    Raises:
        DistillError: If there is no such file, or it has no student alone.
    """
    file = RESULTS / f'{key}.json'
    if not file.exists():
        raise DistillError(f'There are no results "{file.name}"; valid names are {", ".join(names())}.')
    groups: dict[str, list[Outcome]] = {}
    times: dict[str, float] = {}
    costs: dict[str, Cost] = {}
    for run in json.loads(file.read_text()):
        name, time = run['model'], run['time_per_iteration']
        outcome = Outcome(
            name, run['seed'], run['metrics'], '', run['weights_bytes'], time, run.get('instructions', '')
        )
        groups.setdefault(name, []).append(outcome)
        times[name] = time
        if 'parameters' in run:
            costs[name] = Cost(run['parameters'], run['flops'], run['time_per_image'])
    if STUDENT not in groups:
        raise DistillError(f'"{file.name}" has no row "{STUDENT}", from which gains are measured.')
    alone = groups[STUDENT]
    task = task_of(alone[0].metrics)
    main = task.metrics[task.main]
    rows = []
    for name, outcomes in groups.items():
        if name not in (TEACHER, STUDENT):
            seeds = {outcome.seed for outcome in outcomes}
            base = [outcome for outcome in alone if outcome.seed in seeds]
            rows.append(Row(name, outcomes, gains(outcomes, base, main), times[name]))
    return Measured(key, list(groups.values()), rows, costs)


def fingerprint(key: str) -> str:
    """What tells the numbers of a comparison from others, for what is drawn of them."""
    return hashlib.sha256((RESULTS / f'{key}.json').read_bytes()).hexdigest()[:16]


def names() -> list[str]:
    """Names of all comparisons."""
    return sorted(path.stem for path in RESULTS.glob('*.json'))
