"""Distil every family of the installed MMDetection or MMSegmentation zoo for one step and tell which ones work."""

from __future__ import annotations

from pathlib import Path

from benchmarks.zoo.page import cells, columns, page, summary
from benchmarks.zoo.sweep import Limits, families, sweep
from benchmarks.zoo.trial import RECIPES
from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.study.runs import progress_bar
from mmkd_plugin.study.table import console_table


def main() -> None:
    """Sweep."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('package', choices=list(RECIPES))
    parser.add_argument('--families', nargs='+', default=[], help='folders of the zoo; every one by default')
    parser.add_argument('--all', action='store_true', help='every config, not only until one of a family decides')
    parser.add_argument('--out', type=Path, help='write the page to this Markdown file')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/zoo'), help='results are kept and reused here')
    parser.add_argument('--timeout', type=float, default=Limits.seconds, help='seconds that one config may take')
    parser.add_argument('--memory', type=float, default=Limits.gib, help='GiB that one config may take')
    args = parser.parse_args()
    with plain_errors():
        chosen = families(args.package, args.families)
        limits = Limits(args.timeout, args.memory)
        with progress_bar() as progress:
            found = list(sweep(args.package, chosen, args.work_dir / args.package, progress, args.all, limits))
        console = wide_console()
        console.print(console_table(args.package, cells(args.package, found), columns(args.package)))
        console.print(summary(found))
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(page(args.package, found))
            console.print(f'written: {args.out}')


if __name__ == '__main__':
    main()
