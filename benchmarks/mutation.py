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
INTRODUCTION = """\
# Mutation

`make mutation` breaks each file of `mmkd_plugin/functional` in every way that mutmut 2.5.1 knows, one change at a time,
and runs the tests of the same name. A mutant counts unless it is an equivalent of the original, which no test can tell
from it; those are listed below with the reason. This page is written by the command.
"""


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


@dataclasses.dataclass
class Result:
    """What became of the mutants of a file.

    Attributes:
        module: Name of the file, without ``.py``.
        killed: How many the tests refused.
        survived: Those that the tests accepted.
        equivalent: Those that they accepted and could not but accept.
        wrong: Whether one was killed that is listed as an equivalent.
    """

    module: str
    killed: int = 0
    survived: list[Mutant] = dataclasses.field(default_factory=list)
    equivalent: list[Mutant] = dataclasses.field(default_factory=list)
    wrong: bool = False

    @property
    def counted(self) -> int:
        """How many are no equivalents."""
        return self.killed + len(self.survived)


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


def tried(module: str, reasons: dict[tuple[str, str, str], str]) -> Result:
    """Run all mutants of a file and print those that are not as they should be.

    Args:
        module: Name of the file, without ``.py``.
        reasons: Why a mutant is an equivalent, by file, lines before and lines after.

    Returns:
        What became of them.
    """
    if not passes(module, (FOLDER / f'{module}.py').read_text()):
        raise SystemExit(f'tests/functional/test_{module}.py fails without any mutant; mend it first.')
    result = Result(module)
    for mutant in mutants_of(module):
        dead, listed = not passes(module, mutant.source), (module, mutant.before, mutant.after) in reasons
        result.killed += dead
        if not dead:
            (result.equivalent if listed else result.survived).append(mutant)
        if dead == listed:
            result.wrong = result.wrong or dead
            verdict = 'is no equivalent' if dead else 'survives'
            print(f'{module}.py:{mutant.line} {verdict}\n  - {mutant.before}\n  + {mutant.after}', flush=True)
    print(f'{module}: {result.killed} of {result.counted} killed, {len(result.equivalent)} equivalent', flush=True)
    return result


def page_of(results: list[Result], reasons: dict[tuple[str, str, str], str]) -> str:
    """The page that shows the figures, in Markdown."""
    killed, counted = sum(item.killed for item in results), sum(item.counted for item in results)
    lines = [INTRODUCTION, '| file | killed | counted | equivalent |', '| --- | --- | --- | --- |']
    for item in results:
        lines.append(f'| `{item.module}.py` | {item.killed} | {item.counted} | {len(item.equivalent)} |')
    equivalent = sum(len(item.equivalent) for item in results)
    lines += [f'| all | {killed} | {counted} ({killed / counted:.1%}) | {equivalent} |', '']
    for title, chosen in (('Survivors', 'survived'), ('Equivalents', 'equivalent')):
        mutants = [mutant for item in results for mutant in getattr(item, chosen)]
        lines += [f'## {title}', '']
        for mutant in mutants:
            lines += [f'`{mutant.module}.py`, line {mutant.line}:', '', '```diff']
            lines += [f'- {mutant.before}', f'+ {mutant.after}', '```', '']
            reason = reasons.get((mutant.module, mutant.before, mutant.after))
            lines += [reason, ''] if reason else []
        if not mutants:
            lines += ['None.', '']
    return '\n'.join(lines[:-1]) + '\n'


def main() -> None:
    """Run the mutants of the named files, or of all, and print what survives."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('modules', nargs='*', help='files of mmkd_plugin/functional without .py; all by default')
    parser.add_argument('--page', type=Path, help='write the figures to this file')
    args = parser.parse_args()
    names = args.modules or sorted(path.stem for path in FOLDER.glob('*.py') if path.stem != '__init__')
    os.chdir(ROOT)
    # Before the fork, so that no child has to; one thread, since threads do not survive it.
    os.environ['OMP_NUM_THREADS'] = '1'
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401

    listed = json.loads(EQUIVALENTS.read_text())
    reasons = {(item['module'], item['before'], item['after']): item['reason'] for item in listed}
    results = [tried(name, reasons) for name in names]
    if args.page:
        args.page.write_text(page_of(results, reasons))
    raise SystemExit(any(item.wrong for item in results))


if __name__ == '__main__':
    main()
