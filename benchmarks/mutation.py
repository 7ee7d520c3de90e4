"""Break the formulas in every small way there is, and see whether their tests notice.

``python -m benchmarks.mutation`` makes the mutants of mutmut 2 for each file of :mod:`mmkd_plugin.functional` and runs
the tests of the same name on each. The sources stay as they are: a mutant lives in a child process that imports it in
place of the module. PyTorch is imported once, before the children are forked, so that a mutant takes about a second.

Mutants that no test can tell from the original stand in ``mutation_equivalents.json`` with the reason; they are run as
well, and one that a test kills is an error, since it was no equivalent.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'mmkd_plugin' / 'functional'
EQUIVALENTS = Path(__file__).with_name('mutation_equivalents.json')
TIME_LIMIT = 120
"""Seconds after which a mutant counts as killed: it loops."""
MEMORY_LIMIT = 4 * 2**30
"""Bytes of address space; a mutant that asks for more, with a limit of its own gone, gets an error."""


@dataclasses.dataclass
class Mutant:
    """A file with one change.

    Attributes:
        module: Name of the file, without ``.py``.
        line: Where the change is.
        before: The changed lines as they were.
        after: The changed lines as they are.
        source: The whole file.
    """

    module: str
    line: int
    before: str
    after: str
    source: str


def mutants_of(module: str) -> Iterator[Mutant]:
    """All mutants of a file.

    Args:
        module: Name of the file, without ``.py``.

    Yields:
        One mutant after the other.
    """
    from mutmut import Context, list_mutations, mutate

    path = FOLDER / f'{module}.py'
    source = path.read_text()
    for identifier in list_mutations(Context(source=source, filename=str(path))):
        mutated, count = mutate(Context(source=source, filename=str(path), mutation_id=identifier))
        assert count == 1
        changes = list(difflib.ndiff(source.splitlines(), mutated.splitlines()))
        before, after = (
            ' '.join(line[2:].strip() for line in changes if line.startswith(sign)) for sign in ('- ', '+ ')
        )
        yield Mutant(module, identifier.line_number + 1, before, after, mutated)


class _Replacement(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a given source in place of one module."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A spec for the one module."""
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the given source."""
        exec(compile(self.source, f'<mutant of {self.name}>', 'exec'), module.__dict__)


def passes(module: str, source: str) -> bool:
    """Whether the tests of a module accept a source in its place."""
    child = os.fork()
    if not child:
        signal.alarm(TIME_LIMIT)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = 1
        try:
            import pytest

            sys.meta_path.insert(0, _Replacement(f'mmkd_plugin.functional.{module}', source))
            code = int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', f'tests/functional/test_{module}.py']))
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    """Run the mutants of the named files, or of all, and print what survives."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('modules', nargs='*', help='files of mmkd_plugin/functional without .py; all by default')
    names = parser.parse_args().modules or sorted(path.stem for path in FOLDER.glob('*.py') if path.stem != '__init__')
    os.chdir(ROOT)
    # Before the fork, so that no child has to; one thread, since threads do not survive it.
    os.environ['OMP_NUM_THREADS'] = '1'
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401

    known = {(item['module'], item['before'], item['after']) for item in json.loads(EQUIVALENTS.read_text())}
    rows, wrong = [], False
    for name in names:
        if not passes(name, (FOLDER / f'{name}.py').read_text()):
            raise SystemExit(f'tests/functional/test_{name}.py fails without any mutant; mend it first.')
        killed = survived = equivalent = 0
        for mutant in mutants_of(name):
            dead = not passes(name, mutant.source)
            listed = (name, mutant.before, mutant.after) in known
            killed, survived = killed + (dead and not listed), survived + (not dead and not listed)
            equivalent += listed
            if dead == listed:
                wrong = wrong or dead
                verdict = 'is no equivalent' if dead else 'survives'
                print(f'{name}.py:{mutant.line} {verdict}\n  - {mutant.before}\n  + {mutant.after}', flush=True)
        rows.append((name, killed, killed + survived, equivalent))
        print(f'{name}: {killed} of {killed + survived} killed, {equivalent} equivalent', flush=True)
    killed, total, equivalent = (sum(row[index] for row in rows) for index in (1, 2, 3))
    print(f'all: {killed} of {total} killed ({killed / total:.1%}), {equivalent} equivalent')
    raise SystemExit(wrong)


if __name__ == '__main__':
    main()
