"""Train a student alone and distilled with several seeds and print what distillation brings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import CommandParser, add_config_options, plain_errors, wide_console
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.training_options import add_training_options


def main(argv: Sequence[str] | None = None) -> None:
    """Compare.

    Args:
        argv: Arguments; those of the process if None.
    """
    with plain_errors(argv, 'the same command goes on where it stopped.'):
        args = _parse(argv)
        from mmkd_plugin.study.compare import Comparison, compare, picture, with_auto_weights

        console = wide_console()
        comparison = Comparison(
            args.student,
            _named(args.distilled),
            args.seeds,
            args.work_dir,
            args.cfg_options or {},
            args.any_code,
            jobs=args.jobs,
            instruction_sets=args.instruction_sets,
        )
        if args.auto:
            comparison = with_auto_weights(comparison)
        picture(comparison, compare(comparison, console), console)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('student', help='config of the student alone: a file, or a zoo name')
    parser.add_argument('distilled', nargs='+', help='configs with a distill block, as CONFIG or NAME=CONFIG')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='one training each; 0 1 2 by default')
    add_config_options(parser)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'), help='finished runs are kept here')
    parser.add_argument(
        '--any-code', action='store_true', help='keep finished runs although the code of this package changed since'
    )
    parser.add_argument('--auto', action='store_true', help="every distilled config also with loss_weight='auto'")
    add_training_options(parser)
    return parser.parse_args(argv)


def _named(items: Sequence[str]) -> dict[str, str]:
    """Configs by the name shown."""
    distilled: dict[str, str] = {}
    for item in items:
        name, _, config = item.rpartition('=')
        name = name or Path(config).stem
        if name in distilled:
            raise DistillError(
                f'Two configs are called "{name}" ("{distilled[name]}" and "{config}"); name them apart, as in '
                f'first={distilled[name]} second={config}.'
            )
        distilled[name] = config
    return distilled


if __name__ == '__main__':
    main()
