"""Train a student alone and distilled with several seeds and print what distillation brings."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mmkd_plugin.cli import plain_errors, wide_console
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.compare import Comparison, compare, picture


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('student', help='config of the student alone')
    parser.add_argument('distilled', nargs='+', help='configs with a distill block, as CONFIG or NAME=CONFIG')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='one training each; 0 1 2 by default')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'), help='finished runs are kept here')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='overrides for every config')
    parser.add_argument(
        '--any-code', action='store_true', help='keep finished runs although the code of this package changed since'
    )
    args = parser.parse_args()
    with plain_errors():
        distilled = {}
        for item in args.distilled:
            name, _, config = item.rpartition('=')
            distilled[name or Path(config).stem] = config
        for config in (args.student, *distilled.values()):
            if not Path(config).is_file():
                raise DistillError(f'The config file "{config}" does not exist; give the path of a .py config.')
        console = wide_console()
        comparison = Comparison(args.student, distilled, args.seeds, args.work_dir, args.cfg_options, args.any_code)
        picture(comparison, compare(comparison, console), console)


if __name__ == '__main__':
    main()
