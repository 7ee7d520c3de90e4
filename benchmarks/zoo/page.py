"""The page that tells which families of a zoo can be distilled."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.zoo.sweep import Family, families
from benchmarks.zoo.trial import FAILS, LEFT_OUT, RECIPES, STOCK, WORKS
from mmkd_plugin.compat.stacks import DEFAULT, DISTRIBUTIONS, Stack, distribution_of, nearest_stack, read_stacks
from mmkd_plugin.study.table import markdown_table

NAMES = {'mmdet': 'MMDetection', 'mmseg': 'MMSegmentation'}

_WORDS = {WORKS: 'works', FAILS: 'does not work', STOCK: 'stock cannot train', LEFT_OUT: 'left out'}


def summary(found: Sequence[Family]) -> str:
    """How many families work, of those that the stock package trains for one step."""
    counts = Counter(family.result.outcome for family in found)
    tried = counts[WORKS] + counts[FAILS]
    share = f'{100 * counts[WORKS] / tried:.1f} %' if tried else '-'
    return (
        f'{counts[WORKS]} of {tried} families that train alone can be distilled ({share}); {counts[STOCK]} cannot '
        f'take a step by themselves on this CPU, {counts[LEFT_OUT]} are left out.'
    )


def cells(package: str, found: Sequence[Family]) -> list[tuple[str, ...]]:
    """One row for each family."""
    rows = []
    for family in found:
        trial = family.result
        methods = [_short(trial.methods.get(method, '-')) for method in RECIPES[package]]
        rows.append(
            (family.name, _WORDS[trial.outcome], *methods, trial.teacher or '-', _config(trial.config), trial.reason)
        )
    return rows


def columns(package: str) -> tuple[str, ...]:
    """Heads of the columns of :func:`cells`."""
    return ('family', 'result', *RECIPES[package], 'teacher', 'config', 'reason')


def page(package: str, found: Sequence[Family]) -> str:
    """The page in Markdown."""
    name = NAMES[package]
    methods = ' and '.join(RECIPES[package])
    asked = ' whose neck returns several levels' if package == 'mmdet' else ''
    stack = installed_stack()
    named = '' if stack.name == DEFAULT else f' STACK={stack.name}'
    missing = len(families(package)) - len(found)
    so_far = f' {missing} more families of the zoo have not been tried yet.' if missing > 0 else ''
    rows = [tuple(cell.replace('|', '\\|') for cell in row) for row in cells(package, found)]
    table = markdown_table(rows, columns(package)).replace(' ---: |', ' --- |')
    return f"""# The {name} zoo

{summary(found)}{so_far}

Written by `make zoo{named}` on a CPU, in the stack `{stack.name}` ({stack.about}):
{_versions(package, stack)}.
{_optional(stack)}

For each family the first config{asked} that the stock package itself can train for one
step is trained for one step on two small generated images, alone and then with {methods}, each attached by a
recipe base and a `distill` block with an untrained teacher. Where the model's width is one number the teacher is made
1.5 times as wide. A method works if the step runs, the self-check finds no fault and the student's own losses are those
of the stock step; `-` means that it has no meaning there, as FGI without anchors.

{table}"""


def installed_stack() -> Stack:
    """The stack that is installed, or the one that comes nearest."""
    names = ['torch', *(name for names in DISTRIBUTIONS.values() for name in names)]
    return nearest_stack({name: _version(name) for name in names}, platform.python_version(), read_stacks())


def _versions(package: str, stack: Stack) -> str:
    """What the models are made of, with versions."""
    names = [stack.distribution(module) for module in ('mmengine', 'mmcv', package)]
    return ', '.join([f'torch {torch.__version__}', *(f'{name} {_version(name)}' for name in names)])


def _optional(stack: Stack) -> str:
    """Which of the optional packages of a stack are there."""
    versions = {name: _version(name) for name in map(distribution_of, stack.optional)}
    there = [f'{name} {found}' for name, found in versions.items() if found]
    absent = [f'no {name}' for name, found in versions.items() if not found]
    return f'Optional packages: {", ".join(there + absent)}.'


def _version(name: str) -> str:
    """The installed version of a package, empty without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ''


def _short(said: str) -> str:
    return said if said in (WORKS, '-') else 'no'


def _config(name: str) -> str:
    return f'`{name.split("/", 1)[1]}`'
