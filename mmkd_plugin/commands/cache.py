"""``mmkd cache``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmkd_plugin.cli import add_config_options, command_parser, read_config


def main(arguments: Sequence[str]) -> int:
    """Fill the kept records of a config's teachers."""
    args = _parser().parse_args(arguments)

    from mmkd_plugin.study.runs import progress_bar
    from mmkd_plugin.study.teacher_cache import fill_cache
    from mmkd_plugin.teachers.cache import bytes_text

    with progress_bar() as bar:
        task = bar.add_task('records', total=None)
        kept = fill_cache(
            read_config(args),
            say=lambda line: bar.console.print(line, soft_wrap=True, highlight=False),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            remove_others=args.remove_others,
        )
    for item in kept:
        size = bytes_text(item.size)
        print(f'{item.records:,} records, {size}, {item.computed:,} of them computed now: "{item.folder}"')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        'cache',
        "Compute the teacher's records of all training images, in each flip, and keep them on the disk, so that a\n"
        'training with distill.teacher_cache=True reads them and does not build the teacher. What is there already is\n'
        'left; stop it at any time. The disk that it takes is told before anything is written.',
        'mmkd cache mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py',
    )
    parser.add_argument('config', help='config with a distill block: a file, or a zoo name')
    parser.add_argument(
        '--remove-others',
        action='store_true',
        help='remove from the folder of the cache what this config does not read: records of other teachers, configs '
        'and taps, and of images that are gone',
    )
    add_config_options(parser)
    return parser
