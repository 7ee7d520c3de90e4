"""``mmkd doctor``; it must answer also where nothing else of the plugin can be imported."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmkd_plugin.cli import command_parser, wide_console
from mmkd_plugin.compat.doctor import Report, Row, examine


def main(arguments: Sequence[str]) -> int:
    """Print the report; the status is 1 where something will not work."""
    parser = command_parser(
        'doctor',
        'Print what is installed beside the nearest of the stacks that are tested, and one line with its fix for each\n'
        'thing that will not work. The exit status is 1 where there is such a thing; a version that no stack has is\n'
        'none.',
        'mmkd doctor --json',
    )
    parser.add_argument('--json', action='store_true', help='print the report as one JSON object')
    args = parser.parse_args(arguments)
    report = examine()
    if args.json:
        print(json.dumps(_as_json(report), indent=2))
    else:
        _print(report)
    return 1 if report.faults else 0


def _as_json(report: Report) -> dict:
    python, *packages = report.rows
    return dict(
        python=python.version,
        stack=report.stack.name,
        packages={
            row.package: dict(
                distribution=row.distribution, version=row.version, tested=row.tested, verdict=row.verdict
            )
            for row in packages
        },
        faults=[fault._asdict() for fault in report.faults],
        notes=report.notes,
    )


def _print(report: Report) -> None:
    stack = report.stack
    _print_table(report.rows, f'stack {stack.name}')
    print(f'Nearest stack of docs/stacks.md: {stack.name} (torch {stack.version("torch")}, Python {stack.python}).')
    for fault in report.faults:
        print(f'FAULT  {fault}')
    for note in report.notes:
        print(f'note   {note}')
    if not report.faults:
        print('Everything that distillation needs works.')


def _print_table(rows: list[Row], stack: str) -> None:
    lines = [(row.distribution, row.version or '-', row.tested, row.verdict) for row in rows]
    try:
        from rich.table import Table

        console = wide_console()
    except Exception:
        for line in [('package', 'installed', stack, ''), *lines]:
            print('{:24} {:16} {:20} {}'.format(*line).rstrip())
        return
    table = Table('package', 'installed', stack, '')
    colours = {'ok': 'green', 'missing': 'red', 'not tested': 'yellow'}
    for *cells, verdict in lines:
        table.add_row(*cells, f'[{colours[verdict]}]{verdict}[/]')
    console.print(table)
