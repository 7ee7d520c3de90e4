"""The core check of a stack: what is run in its environment, and what each part came to."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Step:
    """A part of the core check.

    Attributes:
        name: For the page.
        arguments: What the environment's Python is given.
        tests: Whether it is pytest, whose tests are counted.
    """

    name: str
    arguments: tuple[str, ...]
    tests: bool = False


def _pytest(name: str, *paths: str) -> Step:
    return Step(name, ('-m', 'pytest', '-q', '-p', 'no:cacheprovider', *paths), tests=True)


STEPS = (
    Step('import', ('-c', 'import mmkd_plugin.engine, mmdet.models, mmseg.models')),
    Step('doctor', ('tools/doctor.py', '--json')),
    _pytest('functions and golden numbers', 'tests/functional'),
    _pytest('losses and methods', 'tests/methods'),
    _pytest('block', 'tests/block'),
    _pytest('safe loading', 'tests/compat', 'tests/runs/test_files_of_strangers.py'),
    _pytest('three lines, killed and resumed', 'tests/runs/test_kill_and_resume.py'),
    Step('terms of the first step', ('-m', 'benchmarks.check_numbers', '--first-step')),
)
"""In this order, cheap ones first."""


@dataclasses.dataclass
class Result:
    """What a step came to.

    Attributes:
        step: Its name.
        passed: Whether it ended well.
        tests: Tests that passed.
        failures: Tests that did not.
        skipped: Tests that were left out.
        seconds: How long it took.
        said: Where it did not end well, the tests that failed or its last line.
    """

    step: str
    passed: bool
    tests: int = 0
    failures: int = 0
    skipped: int = 0
    seconds: float = 0.0
    said: str = ''


def run_step(step: Step, python: Path, folder: Path) -> Result:
    """Run a step with an environment's Python, from the root of the working tree.

    Args:
        step: The step.
        python: The interpreter.
        folder: Where output and pytest's report are kept.

    Returns:
        What it came to; nothing is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = step.name.replace(' ', '_').replace(',', '')
    report = folder / f'{name}.xml'
    report.unlink(missing_ok=True)
    extra = [f'--junitxml={report}'] if step.tests else []
    start = time.monotonic()
    with (folder / f'{name}.log').open('w+') as log:
        done = subprocess.run(
            [str(python), *step.arguments, *extra],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONWARNINGS': 'ignore', 'PYTHONNOUSERSITE': '1'},
        )
        log.seek(0)
        lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    seconds = round(time.monotonic() - start, 1)
    result = Result(step.name, done.returncode == 0, seconds=seconds)
    if step.tests and report.is_file():
        _count(result, report)
    if not result.passed and not result.said:
        result.said = lines[-1] if lines else f'exit status {done.returncode}'
    return result


def _count(result: Result, report: Path) -> None:
    """Read pytest's own report."""
    broken = []
    for case in xml.etree.ElementTree.parse(report).getroot().iter('testcase'):
        outcomes = {child.tag for child in case}
        if outcomes & {'failure', 'error'}:
            broken.append(f'{case.get("classname", "").rpartition(".")[2]}::{case.get("name")}')
        elif 'skipped' in outcomes:
            result.skipped += 1
        else:
            result.tests += 1
    result.failures = len(broken)
    result.said = ', '.join(broken[:5]) + (f' and {len(broken) - 5} more' if len(broken) > 5 else '')


@dataclasses.dataclass
class Row:
    """What is known of a stack.

    Attributes:
        stack: Its name.
        versions: What is installed, by the name that pip knows.
        python: The version of Python.
        disk: Gigabytes that the environment takes.
        results: What the steps came to.
        reason: Where the stack cannot be made, why.
    """

    stack: str
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    python: str = ''
    disk: float = 0.0
    results: list[Result] = dataclasses.field(default_factory=list)
    reason: str = ''

    @property
    def passed(self) -> bool:
        """Whether every step ended well."""
        return not self.reason and len(self.results) == len(STEPS) and all(result.passed for result in self.results)

    def write(self, folder: Path) -> None:
        """Keep the row, complete or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f'{self.stack}.json.new'
        new.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding='utf-8')
        new.replace(folder / f'{self.stack}.json')


def read_rows(folder: Path) -> dict[str, Row]:
    """The rows that were kept, by stack."""
    rows = {}
    for file in sorted(folder.glob('*.json')):
        stored = json.loads(file.read_text(encoding='utf-8'))
        stored['results'] = [Result(**result) for result in stored['results']]
        rows[stored['stack']] = Row(**stored)
    return rows
