"""Train every pair of COCO-mini with several seeds and print what each method brings to its student; takes long."""

from __future__ import annotations

from pathlib import Path

from benchmarks.catalogue import comparisons
from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.datasets import ensure_coco_mini
from mmkd_plugin.study.compare import Comparison, compare, picture


def planned(families: list[str], seeds: list[int], work_dir: Path, any_code: bool = False) -> list[Comparison]:
    """What is compared.

    Args:
        families: Which models; all where none is named.
        seeds: One training for each.
        work_dir: Gets a folder for each family.
        any_code: Whether finished runs count although the code has changed since.

    Returns:
        One comparison for each family and student.
    """
    found = []
    for family, pairs in comparisons().items():
        if families and family not in families:
            continue
        for alone in sorted({pair.alone for pair in pairs}):
            distilled = {pair.label: str(pair.path) for pair in pairs if pair.alone == alone}
            found.append(Comparison(str(alone), distilled, seeds, work_dir / family, any_code=any_code))
    return found


def main() -> None:
    """Compare."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--families', nargs='+', choices=list(comparisons()), default=[], help='all by default')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='one training each; 0 1 2 by default')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/methods'), help='finished runs are kept here')
    parser.add_argument(
        '--any-code', action='store_true', help='keep finished runs although the code of this package changed since'
    )
    args = parser.parse_args()
    with plain_errors():
        console = wide_console()
        ensure_coco_mini('data/coco_mini')
        for comparison in planned(args.families, args.seeds, args.work_dir, args.any_code):
            picture(comparison, compare(comparison, console), console)


if __name__ == '__main__':
    main()
