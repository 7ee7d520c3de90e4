"""``mmkd report``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import command_parser
from mmkd_plugin.errors import DistillError

_ENDINGS = ('.html', '.htm')


def main(arguments: Sequence[str]) -> int:
    """Write a page about runs and print its path."""
    parser = command_parser(
        'report',
        'Write one page about trainings from what lies in their work folders: curves of every term and metric, the\n'
        'undistilled run beside the distilled ones, the self-check, pictures, parameters, FLOPs, times, the block and\n'
        'the config. The page needs nothing beside it. Configs are read without running them; to count parameters and\n'
        'FLOPs the models are built, which runs code that a config names; --no-models does not.',
        'mmkd report work_dirs/distilled work_dirs/alone --out work_dirs/report.html',
    )
    parser.add_argument(
        'folders',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help='work folder of a run, distilled or not; of tools/compare.py too: all of it, a row, or a seed',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('report.html'), metavar='FILE', help='page to write; report.html by default'
    )
    parser.add_argument('--no-models', action='store_true', help='build no models, so that no code of a config runs')
    args = parser.parse_args(arguments)
    if args.out.suffix.lower() not in _ENDINGS:
        raise DistillError(f'--out {args.out} does not end in .html, so no browser would show it; name it report.html.')

    from mmkd_plugin.study.report.page import report_page
    from mmkd_plugin.study.report.run import find_runs
    from mmkd_plugin.utilities.files import output_file

    say = functools.partial(print, file=sys.stderr, flush=True)
    runs = find_runs(args.folders)
    with output_file(args.out) as temporary:
        temporary.write_text(report_page(runs, not args.no_models, say), encoding='utf-8', errors='replace')
    print(args.out)
    return 0
