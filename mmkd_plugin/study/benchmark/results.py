"""The results of a machine in one file, so that a killed measurement goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mmkd_plugin.compat.machine import Machine
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark.measure import Measured, Side
from mmkd_plugin.utilities.files import output_file

NOTE = 'note'
"""What a person says about a machine; all else is found out."""

_PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmrazor', 'mmkd_plugin')


@dataclasses.dataclass
class Row:
    """The measurement of one config.

    Attributes:
        config: Its name, a zoo name or a path that tells nothing of the machine.
        digest: Hash of what it says.
        code: Hash of the plugin's code.
        batches: What it was measured with, see :meth:`Case.described`.
        measured: What was found.
    """

    config: str
    digest: str
    code: str
    batches: dict[str, Any]
    measured: Measured

    @property
    def rounds(self) -> int:
        """How many steps of each side were timed."""
        return min((len(side.seconds) for side in self.measured.sides.values()), default=0)

    def as_json(self) -> dict[str, Any]:
        """As it stands in the file; seconds to a hundredth of a millisecond."""
        found = dataclasses.asdict(self)
        for side in found['measured']['sides'].values():
            side['seconds'] = [round(value, 5) for value in side['seconds']]
        return found

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Row:
        """The opposite of :meth:`as_json`."""
        measured = dict(values['measured'])
        measured['sides'] = {name: Side(**side) for name, side in measured['sides'].items()}
        return cls(**{**values, 'measured': Measured(**measured)})


@dataclasses.dataclass
class Results:
    """All rows of one machine.

    Attributes:
        machine: See :func:`this_machine`.
        rows: In the order in which they were measured first.
    """

    machine: dict[str, Any]
    rows: list[Row]

    def find(self, config: str, batches: dict[str, Any]) -> Row | None:
        """The row of a config that was measured with the same."""
        found = (row for row in self.rows if (row.config, row.batches) == (config, batches))
        return next(found, None)

    def add(self, row: Row) -> None:
        """Put a row in the place of the one that it replaces, or behind all."""
        known = self.find(row.config, row.batches)
        if known is None:
            self.rows.append(row)
        else:
            self.rows[self.rows.index(known)] = row

    def write(self, file: Path) -> None:
        """Write the file, whole or not at all, a line for each row.

        Raises:
            DistillError: If it cannot be written.
        """
        rows = ',\n'.join(json.dumps(row.as_json()) for row in self.rows)
        machine = json.dumps(self.machine, indent=1)
        with output_file(file) as temporary:
            temporary.write_text(f'{{"machine": {machine},\n"rows": [\n{rows}\n]}}\n', encoding='utf-8')


def read_results(file: Path) -> Results:
    """Read the results of a machine.

    Args:
        file: As :meth:`Results.write` leaves it.

    Raises:
        DistillError: If it is no such file.
    """
    try:
        values = json.loads(file.read_text(encoding='utf-8'))
        return Results(dict(values['machine']), [Row.from_json(row) for row in values['rows']])
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise DistillError(
            f'"{file}" holds no results of "mmkd benchmark"; move it away, or give another folder with --out.'
        ) from error


def results_of(file: Path, note: str = '') -> Results:
    """The results of this machine so far.

    Args:
        file: Where they are kept; it need not exist.
        note: What is said about the machine.

    Raises:
        DistillError: If the file holds those of another machine, or of other versions.
    """
    machine = this_machine()
    results = Results({NOTE: '', **machine}, [])
    if file.exists():
        results = read_results(file)
        other = next((key for key, value in machine.items() if results.machine.get(key) != value), None)
        if other is not None and results.rows:
            raise DistillError(
                f'"{file}" was measured where {other} was {results.machine.get(other)!r}, and here it is '
                f'{machine[other]!r}; give another folder with --out.'
            )
        results.machine.update(machine)
    if note:
        results.machine[NOTE] = note
    return results


def this_machine() -> dict[str, Any]:
    """What a measurement depends on: processor, memory and versions; neither name nor address of the machine."""
    found: dict[str, Any] = dict(
        cpu=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        threads=torch.get_num_threads(),
        memory_gib=_memory(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else '',
        system=platform.system(),
        python=platform.python_version(),
        torch=torch.__version__,
    )
    return {**found, **{name: Machine().version(name) for name in _PACKAGES}}


def _processor() -> str:
    """The model of the processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


def _memory() -> int | None:
    """Memory in GiB."""
    try:
        return round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30)
    except (AttributeError, OSError, ValueError):
        return None


def public_name(config: str) -> str:
    """A config's name as others may read it.

    Args:
        config: A zoo name, or the path of a file.

    Returns:
        The zoo name, the path within the folder of now, or the name of the file alone.
    """
    if '::' in config:
        return config
    path = Path(config).expanduser().resolve()
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if here in path.parents else path.name


def all_results(folder: Path) -> dict[str, Results]:
    """The results of all machines in a folder, by the names of their files without the end."""
    return {file.stem: read_results(file) for file in _sorted(folder.glob('*.json'))}


def _sorted(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: file.name)
