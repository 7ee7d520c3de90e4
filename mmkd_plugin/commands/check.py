"""``mmkd check``."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence

from mmkd_plugin.cli import add_config_options, command_parser, read_config, wide_console
from mmkd_plugin.errors import DistillError


def main(arguments: Sequence[str]) -> int:
    """Try a config and print what was found."""
    args = _parser().parse_args(arguments)
    steps = _count(args.steps)
    if args.student and not args.evaluate_teacher:
        raise DistillError('--student is what the teacher is compared with; give --evaluate-teacher too.')

    from mmkd_plugin.study.check import check
    from mmkd_plugin.study.check_tables import print_check

    # Bound to the stream of now: what the trial itself prints goes nowhere.
    say = functools.partial(print, file=sys.stderr, flush=True)
    found = check(read_config(args), steps, args.evaluate_teacher, args.student, say)
    print_check(wide_console(), found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        'check',
        'Try a config before it is trained: build its models, read its first batches, take some steps, and stop.\n'
        'It prints the self-check of the first step, the time and memory of a step against the student alone, and how\n'
        'long the whole run will take; it warns where images have no labels and where the teacher does not fit.\n'
        'Nothing is written into the work folder.',
        'mmkd check mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py --evaluate-teacher',
    )
    parser.add_argument('config', help='config with a distill block: a file, or a zoo name')
    parser.add_argument('--steps', default='5', metavar='N', help='how many steps are timed; 5 by default')
    parser.add_argument(
        '--evaluate-teacher', action='store_true', help='evaluate the teacher on the validation data, all of it'
    )
    parser.add_argument(
        '--student',
        metavar='CKPT',
        help='with --evaluate-teacher: checkpoint of a student to compare it with; load_from of the config by default',
    )
    add_config_options(parser)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise DistillError(f'--steps is "{text}", but takes a whole number of at least 1.')
    return int(text)
