"""Train every pair of COCO-mini with several seeds and print what each method brings to its student; takes long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.catalogue import Pair, comparisons
from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.datasets import ensure_coco_mini
from mmkd_plugin.study.compare import WHOLE, Comparison, compare, picture, with_auto_weights
from mmkd_plugin.study.training_options import add_training_options


def planned(families: list[str], seeds: list[int], work_dir: Path, **how: Any) -> list[Comparison]:
    """What is compared: every pair with its published weights and with those that find themselves.

    Methods that take a share of the student's own loss are also tried with that loss whole.

    Args:
        families: Which models; all where none is named.
        seeds: One training for each.
        work_dir: Gets a folder for each family.
        **how: Further arguments of each comparison.

    Returns:
        One comparison for each family and student.
    """
    found = []
    for family, pairs in comparisons().items():
        if families and family not in families:
            continue
        for alone in sorted({pair.alone for pair in pairs}):
            distilled, own = {}, {}
            for pair in pairs:
                if pair.alone == alone:
                    distilled[pair.label] = str(pair.path)
                    whole = hard_loss_whole(pair)
                    if whole:
                        label = f'{pair.label}{WHOLE}'
                        distilled[label], own[label] = str(pair.path), whole
            comparison = Comparison(str(alone), distilled, seeds, work_dir / family, own_options=own, **how)
            found.append(with_auto_weights(comparison))
    return found


def hard_loss_whole(pair: Pair) -> dict[str, float]:
    """Options of a pair that leave the student's own loss whole, and the soft terms their weight.

    Args:
        pair: A student and a teacher.

    Returns:
        Overrides by key; none where no method takes a share.
    """
    found: dict[str, float] = {}
    for name, method in pair.written.items():
        for soft in ('soft_weight', 'kl_weight'):
            if soft in method.settings() and method.hard_share < 1:
                where = f'distill.methods.{name}'
                found.update({f'{where}.hard_share': 1, f'{where}.{soft}': 1 - method.hard_share})
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
    parser.add_argument('--rows', nargs='+', default=[], help='only these, by the names that the tables have')
    add_training_options(parser)
    args = parser.parse_args()
    with plain_errors():
        console = wide_console()
        ensure_coco_mini('data/coco_mini')
        how = dict(any_code=args.any_code, jobs=args.jobs, instruction_sets=args.instruction_sets)
        for comparison in planned(args.families, args.seeds, args.work_dir, **how):
            if args.rows:
                comparison = comparison.only(args.rows)
            picture(comparison, compare(comparison, console), console)


if __name__ == '__main__':
    main()
