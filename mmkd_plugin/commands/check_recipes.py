"""``mmkd check-recipes``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import command_parser
from mmkd_plugin.errors import DistillError


def main(arguments: Sequence[str]) -> int:
    """Train recipes for a step each; the status is 1 where one does not work."""
    args = _parser().parse_args(arguments)
    if args.size < 1:
        raise DistillError(f'--size {args.size} is no side of an image; give pixels, 256 for instance.')

    from mmkd_plugin.study.recipes.check import check_recipe, shipped_recipes, short_name
    from mmkd_plugin.study.recipes.page import lines_of, page, summary
    from mmkd_plugin.utilities.files import output_file

    names = args.configs or shipped_recipes()
    found = []
    for index, name in enumerate(names, 1):
        _say(f'[{index:{len(str(len(names)))}}/{len(names)}] {short_name(name)} ... ', end='')
        found.append(check_recipe(name, args.work_dir / _folder(short_name(name)), args.size, args.traceback))
        first, *others = lines_of(found[-1])
        _say('\n'.join([first, *others]))
    _say(summary(found))
    if args.page:
        with output_file(args.page) as temporary:
            temporary.write_text(page(found, args.size), encoding='utf-8')
    return 1 if any(checked.fault for checked in found) else 0


def _folder(name: str) -> str:
    """Folder of a recipe's run."""
    return Path(name).with_suffix('').as_posix().strip('./').replace('/', '__')


def _say(text: str, end: str = '\n') -> None:
    print(text, end=end)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        'check-recipes',
        'Train configs with a distill block for one step each, on small generated images and with a random teacher,\n'
        'both models as large as their configs make them; no data and no weights are needed. It prints what is\n'
        'compared and what each term is worth. A config fails where it cannot be expanded or built, or where a term\n'
        'is not finite or sends no gradient to the student; the others go on, and the exit status is then 1.',
        'mmkd check-recipes mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py',
    )
    parser.add_argument(
        'configs',
        nargs='*',
        metavar='CONFIG',
        help='a file, or a zoo name; all full recipes that are shipped by default',
    )
    parser.add_argument('--size', type=int, default=256, help='side of the images in pixels; 256 by default')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/check_recipes'), help='folder for what the runs print'
    )
    parser.add_argument('--page', type=Path, metavar='FILE', help='write the table to this Markdown file')
    return parser
