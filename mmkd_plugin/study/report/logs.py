"""What a run has logged, joined over all times that it was started."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STAMP = re.compile(r'(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ')
_EPOCH = re.compile(r'Epoch\(train\)\s+\[\s*\d+\]\[\s*\d+/\s*(\d+)\]')
_CHECKS = ('Distillation at ', 'discriminators')
_NOT_METRICS = ('time', 'data_time', 'step', 'iter', 'epoch')
_LONGEST_CHECK = 400
_BRACKETS = 5000


@dataclasses.dataclass
class Logged:
    """What the logs of one work folder hold.

    Attributes:
        scalars: Values of the training by name and iteration.
        metrics: Values of the validation alike.
        validation_seconds: Of a batch, a value for each validation.
        checks: What the self-check has said, a text for each time.
        first: When the run began, as its log says; empty where that is not known.
        last: When it logged last.
        starts: How many times it was started and trained.
        broken: Lines that could not be read.
        config: The config of the last start, as text; empty where there is none.
    """

    scalars: dict[str, dict[int, float]] = dataclasses.field(default_factory=dict)
    metrics: dict[str, dict[int, float]] = dataclasses.field(default_factory=dict)
    validation_seconds: list[float] = dataclasses.field(default_factory=list)
    checks: list[str] = dataclasses.field(default_factory=list)
    first: str = ''
    last: str = ''
    starts: int = 0
    broken: int = 0
    config: str = ''

    @property
    def iterations(self) -> int:
        """The last iteration that was logged."""
        return max((max(points) for points in self.scalars.values() if points), default=0)


@dataclasses.dataclass
class _Text:
    """What the ``.log`` of one start holds."""

    first: str = ''
    last: str = ''
    per_epoch: int = 0
    checks: list[str] = dataclasses.field(default_factory=list)


def scalar_files(folder: Path) -> list[Path]:
    """The scalars of each start of a run, the oldest first."""
    return sorted(folder.glob('*/vis_data/scalars.json'))


def read_logs(folder: Path) -> Logged:
    """Read the logs of a run.

    A resumed run has a folder for each start. What an earlier one has logged from the iteration on at which a later
    one goes on is left out, since those steps were taken again.

    Args:
        folder: Work folder of the run.

    Returns:
        What was logged; no scalars where nothing was trained there.
    """
    from mmkd_plugin.study.report.written import written_config

    logged = Logged()
    for file in scalar_files(folder):
        records, broken = _records(file)
        logged.broken += broken
        steps = [_step(record, 'iter') for record in records if _of_training(record)]
        if not steps:
            continue
        start = file.parents[1]
        text = _read_text(start / f'{start.name}.log')
        config = start / 'vis_data' / 'config.py'
        logged.config = config.read_text(encoding='utf-8', errors='replace') if config.is_file() else ''
        try:
            entries = written_config(logged.config)
        except ValueError:
            entries = {}
        for points in [*logged.scalars.values(), *logged.metrics.values()]:
            for step in [step for step in points if step >= min(steps)]:
                del points[step]
        _add(logged, records, _Places(entries, text.per_epoch, records))
        logged.starts += 1
        logged.first = logged.first or text.first
        logged.last = text.last or logged.last
        logged.checks += text.checks
    for values in (logged.scalars, logged.metrics):
        for name in [name for name, points in values.items() if not points]:
            del values[name]
    return logged


class _Places:
    """Tells at which iteration a validation was made, of which the log has the epoch, or nothing.

    Args:
        config: Entries of the run's config.
        per_epoch: Iterations of an epoch, 0 where the log does not say.
        records: Of one start.
    """

    def __init__(self, config: dict[str, Any], per_epoch: int, records: list[dict[str, Any]]) -> None:
        training = config.get('train_cfg')
        training = training if isinstance(training, dict) else {}
        hooks = config.get('default_hooks')
        logger = hooks.get('logger') if isinstance(hooks, dict) else None
        logger = logger if isinstance(logger, dict) else {}
        self.by_iteration = logger.get('log_metric_by_epoch', True) is False
        self.interval = _whole(training.get('val_interval', 1000))
        self.end = _whole(training.get('max_iters'))
        self.per_epoch = per_epoch
        self.records = records
        self.of_epochs = any('epoch' in record for record in records if _of_training(record))

    def iteration(self, index: int) -> int:
        """Of the validation that stands at a place in the records."""
        step = _step(self.records[index], 'step')
        if self.of_epochs and not self.by_iteration:
            last = [
                _step(record, 'iter') for record in self.records if _of_training(record) and record.get('epoch') == step
            ]
            # A short run of epochs may log none of its last lines, so the length of an epoch goes first.
            return step * self.per_epoch or max(last, default=self._before(index))
        if self.by_iteration and step:
            return step
        if self.interval < 1 or self.of_epochs:
            return self._before(index)
        place = self._multiple(index) * self.interval
        return min(place, self.end) if self.end else place

    def _multiple(self, index: int) -> int:
        """Which multiple of the interval a validation is: one of those between two lines of the training."""
        ahead = [place for place in range(index) if _of_training(self.records[place])]
        if ahead:
            line = ahead[-1]
            return -(-_step(self.records[line], 'iter') // self.interval) + index - line - 1
        behind = [place for place in range(index, len(self.records)) if _of_training(self.records[place])]
        return (_step(self.records[behind[0]], 'iter') - 1) // self.interval - (behind[0] - index - 1)

    def _before(self, index: int) -> int:
        """The last iteration that was logged ahead of a record; where there is none, the first behind."""
        for record in [*reversed(self.records[:index]), *self.records[index:]]:
            if _of_training(record):
                return _step(record, 'iter')
        return 0


def _add(logged: Logged, records: list[dict[str, Any]], places: _Places) -> None:
    for index, record in enumerate(records):
        if _of_training(record):
            step, values = _step(record, 'iter'), logged.scalars
        else:
            step, values = places.iteration(index), logged.metrics
            if _number(record.get('time')) is not None:
                logged.validation_seconds.append(float(record['time']))
        for name, value in record.items():
            number = _number(value)
            skipped = _NOT_METRICS if values is logged.metrics else _NOT_METRICS[2:]
            # COCO's tool gives -1 where there is nothing to measure, such as no large object.
            absent = values is logged.metrics and name.startswith('coco/') and number == -1
            if number is not None and name not in skipped and not absent:
                values.setdefault(name, {})[step] = number


def parsed(text: str) -> Any:
    """What a text of JSON says, None where it is none."""
    # Python's own reader fills the stack, and ends the process, on brackets within brackets where some package has
    # raised the limit of recursion, as yapf does.
    if text.count('[') + text.count('{') > _BRACKETS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _records(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that can be read, and how many cannot, such as the last one of a run that was killed."""
    records, broken = [], 0
    with file.open(encoding='utf-8', errors='replace') as lines:
        for line in lines:
            record = parsed(line)
            if isinstance(record, dict) and _number(record.get('step')) is not None:
                records.append(record)
            elif line.strip():
                broken += 1
    return records, broken


def _read_text(file: Path) -> _Text:
    """Times, length of an epoch and self-check of a log."""
    found = _Text()
    if not file.is_file():
        return found
    open_check = False
    for line in _lines(file):
        stamp = _STAMP.match(line)
        if stamp:
            found.first, found.last = found.first or stamp[1], stamp[1]
            message = line.split(' - INFO - ', 1)[-1]
            open_check = ' - INFO - ' in line and message.startswith(_CHECKS)
            if open_check:
                found.checks.append('')
            length = _EPOCH.search(line)
            found.per_epoch = int(length[1]) if length else found.per_epoch
            line = message
        if open_check and found.checks[-1].count('\n') < _LONGEST_CHECK:
            found.checks[-1] += line.rstrip() + '\n'
    return found


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding='utf-8', errors='replace') as lines:
        yield from lines


def _of_training(record: dict[str, Any]) -> bool:
    return _number(record.get('iter')) is not None


def _step(record: dict[str, Any], key: str) -> int:
    value = _number(record.get(key))
    return int(value) if value is not None and math.isfinite(value) else 0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
