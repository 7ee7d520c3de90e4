"""Make each stack in an environment of its own, run the core check on it, and write the page.

Runs with any Python and nothing installed: ``python3 -m benchmarks.stacks``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.stacks.page import page
from benchmarks.stacks.steps import ROOT, STEPS, Row, read_rows, run_step
from mmkd_plugin.compat.stacks import Stack, read_stacks

SPARE = 2.0
"""Gigabytes that stay free beside an environment: what is fetched is unpacked beside what is kept."""

INSTALLED = """
import importlib.metadata, json, platform, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ''
print(json.dumps([platform.python_version(), {name: version(name) for name in sys.argv[1:]}]))
"""


def main() -> int:
    """Check the stacks.

    Returns:
        The exit status: 1 where a stack that was made does not pass.
    """
    stacks = read_stacks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help=f'of {", ".join(stacks)}')
    parser.add_argument('--keep', action='store_true', help='do not remove an environment when its row is written')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/stacks.md', help='the page')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/stacks', help='rows and logs are kept here')
    parser.add_argument(
        '--steps', nargs='+', default=[], metavar='WORDS', help='run the steps with these words in their names alone'
    )
    args = parser.parse_args()
    for name in args.only:
        if name not in stacks:
            parser.error(f'there is no stack "{name}"; choose one of {", ".join(stacks)}')
    folder = Path(os.environ.get('STACKS') or ROOT / '.stacks').expanduser().resolve()
    chosen = [stacks[name] for name in args.only or stacks]
    announce(chosen, folder)
    passed = True
    for stack in chosen:
        row = check(stack, folder, args.work_dir, args.steps)
        row.write(args.work_dir)
        args.out.write_text(page(stacks, read_rows(args.work_dir)), encoding='utf-8')
        verdict = f'cannot be made: {row.reason}' if row.reason else 'passes' if row.passed else 'fails'
        print(f'{stack.name}: {verdict}; written to {args.out}', flush=True)
        passed = passed and (row.passed or bool(row.reason))
        if not args.keep:
            shutil.rmtree(folder / stack.name, ignore_errors=True)
    return 0 if passed else 1


def announce(stacks: Iterable[Stack], folder: Path) -> None:
    """Tell what will be fetched and stored before anything is."""
    print(f'Environments are made in {folder}, one after the other, with {free(folder):.0f} GB free there:')
    for stack in stacks:
        there = ', there already' if (folder / stack.name).exists() else ''
        print(f'  {stack.name:14} fetches up to {stack.download:.1f} GB, takes {stack.disk:.1f} GB{there}', flush=True)


def check(stack: Stack, folder: Path, work_dir: Path, words: Sequence[str] = ()) -> Row:
    """Make a stack and run the core check on it.

    Args:
        stack: The stack.
        folder: Where environments lie.
        work_dir: Where rows and logs go.
        words: What names of steps hold that are run; others stay as the kept row has them. All are run by default.

    Returns:
        Its row.
    """
    kept = {result.step: result for result in read_rows(work_dir).get(stack.name, Row(stack.name)).results}
    row = Row(stack.name)
    environment = folder / stack.name
    if not environment.exists() and free(folder) < stack.disk + SPARE:
        row.reason = f'it takes {stack.disk:.1f} GB and {SPARE:.0f} to spare, and {free(folder):.0f} GB are free.'
        return row
    row.reason = set_up(stack, folder)
    if row.reason:
        return row
    python = environment / 'bin/python'
    names = [*stack.packages, 'numpy', 'torchvision', 'opencv-python', 'opencv-python-headless']
    asked = subprocess.run([str(python), '-c', INSTALLED, *names], capture_output=True, text=True, check=True)
    row.python, row.versions = json.loads(asked.stdout)
    row.disk = size(environment)
    for step in STEPS:
        if words and not any(word in step.name for word in words):
            row.results += [kept[step.name]] if step.name in kept else []
            continue
        print(f'  {stack.name}, {step.name} ...', end=' ', flush=True)
        result = run_step(step, python, work_dir / stack.name)
        row.results.append(result)
        counted = f'{result.tests} passed, {result.failures} failed, ' if step.tests else ''
        print(f'{counted}{"ok" if result.passed else "FAILS"} ({result.seconds:.0f} s) {result.said}', flush=True)
    return row


def set_up(stack: Stack, folder: Path) -> str:
    """Install a stack.

    Returns:
        Why it cannot be installed; empty where it was.
    """
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'setup/bootstrap'), '--folder', str(folder / stack.name)],
        env={**os.environ, 'STACK': stack.name},
        stdout=subprocess.PIPE,
        text=True,
    )
    last = ''
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end='', flush=True)
        last = line.strip() or last
    return '' if process.wait() == 0 else last.partition('error: ')[2] or last


def free(folder: Path) -> float:
    """Gigabytes that are free where a folder lies or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def size(folder: Path) -> float:
    """Gigabytes that a folder takes."""
    return sum(file.lstat().st_size for file in folder.rglob('*') if not file.is_dir()) / 1e9


if __name__ == '__main__':
    sys.exit(main())
