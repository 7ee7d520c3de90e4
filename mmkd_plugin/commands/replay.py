"""``mmkd replay``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmkd_plugin.cli import command_parser, wide_console

if TYPE_CHECKING:
    from mmkd_plugin.engine.replay import Replay


def main(arguments: Sequence[str]) -> int:
    """Repeat a kept step and print its numbers."""
    parser = command_parser(
        'replay',
        'Repeat the step that a run has kept because a term, a gradient or a weight was not finite: with its batch,\n'
        'its random numbers and, where they were still finite, its weights. It prints every term by level, the\n'
        'gradient of each part and the first module whose output is not finite. Run it where the run was started,\n'
        "with the teacher's checkpoint in its place; like any config, that of the run names the code that is built.",
        'mmkd replay work_dirs/my_run/fault_iter_120',
    )
    parser.add_argument('folder', help='folder fault_iter_<iteration> in the work folder of the run')
    args = parser.parse_args(arguments)

    from mmkd_plugin.engine.replay import replay

    _print(replay(args.folder))
    return 0


def _print(found: Replay) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = wide_console()
    print(f'Iteration {found.iteration}, images: {", ".join(found.images) or "not known"}')
    print(f'Weights: {found.weights}.')
    terms = Table('term', 'level', 'value', 'finite')
    for label, value in found.numbers.items():
        terms.add_row(escape(label.name), label.level or '-', f'{value:.6g}', _finite(value))
    console.print(terms)
    gradients = Table('part', 'gradient norm', 'finite')
    for part, norm in found.gradients.items():
        gradients.add_row(escape(part), f'{norm:.6g}', _finite(norm))
    console.print(gradients)
    print(f'First output that is not finite: {found.first or "none"}.')
    print(found.verdict)


def _finite(value: float) -> str:
    return 'yes' if math.isfinite(value) else '[red]NO[/]'
