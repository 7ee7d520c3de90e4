"""Distil a small detector on generated images; the teacher comes with the project. Takes minutes on two cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import CommandParser, plain_errors, wide_console


def main(argv: Sequence[str] | None = None) -> None:
    """Generate the data, train the student alone and distilled, show both beside the teacher.

    Args:
        argv: Arguments; those of the process if None.
    """
    parser = CommandParser(description=__doc__)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='one training each; 0 by default')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='finished runs are kept here')
    with plain_errors(argv, 'the same command goes on where it stopped.'):
        args = parser.parse_args(argv)
        from mmkd_plugin.datasets import ensure_coco_mini
        from mmkd_plugin.study.compare import Comparison, compare, picture

        console = wide_console()
        ensure_coco_mini('data/coco_mini')
        configs = Path(__file__).resolve().parents[1] / 'configs/coco_mini'
        comparison = Comparison(
            student=str(configs / 'retina_r18.py'),
            distilled={'distilled with FGD': str(configs / 'fgd_retina_r34_to_r18.py')},
            seeds=args.seeds,
            work_dir=args.work_dir,
        )
        picture(comparison, compare(comparison, console), console)


if __name__ == '__main__':
    main()
