"""``mmkd calibrate``."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmkd_plugin.cli import add_config_options, command_parser, read_config, wide_console

if TYPE_CHECKING:
    from mmkd_plugin.study.calibrate import Calibration, Measured


def main(arguments: Sequence[str]) -> int:
    """Measure how strongly methods pull and print the weights that give them a share."""
    parser = command_parser(
        'calibrate',
        'Train a config for some iterations on its own batches and compare, on those that follow, the gradient of\n'
        'each term with that of the task loss, at features of the student that both reach. Prints the value and the\n'
        'gradient of each term in those of the task loss, the loss_weight that gives each method its share, and the\n'
        "block to paste. loss_weight='auto' does the same all along a run. Nothing is written.",
        'mmkd calibrate mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py --after 20 --batches 10',
    )
    parser.add_argument('config', help='config with a distill block: a file, or a zoo name')
    parser.add_argument('--batches', type=int, default=20, help='how many batches are measured; 20 by default')
    parser.add_argument(
        '--after',
        type=int,
        default=50,
        help='how many iterations are trained before, since the first ones mislead; 50 by default',
    )
    parser.add_argument(
        '--share',
        type=float,
        help='ratio of the gradient of all methods together to that of the task loss; that of the block by default',
    )
    add_config_options(parser)
    args = parser.parse_args(arguments)

    from mmkd_plugin.errors import DistillError
    from mmkd_plugin.study.calibrate import calibrate

    if args.share is not None and not 0 < args.share < math.inf:
        raise DistillError(f'--share {args.share:g} is no ratio of two gradients; give a number above 0, such as 1.')
    cfg = read_config(args)
    cfg.log_level = logging.getLevelName(logging.WARNING)
    _print(calibrate(cfg, args.batches, args.after, args.share))
    return 0


def _print(found: Calibration) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = wide_console()
    print(f'{found.batches} batches behind {found.after} iterations, levels added up')
    terms = Table('term', 'value / task loss', "gradient / task loss's", 'spread')
    for name, item in found.terms.items():
        terms.add_row(escape(name), f'{item.value:.3g}', *_gradient(item))
    console.print(terms)
    methods = Table(
        'method', "gradient / task loss's", 'spread', 'loss_weight', 'share asked for', 'loss_weight for it'
    )
    for name, weight in found.methods.items():
        wanted = '-' if weight.wanted is None else f'{weight.wanted:.3g}'
        numbers = (f'{weight.weight:.4g}', f'{weight.share:.3g}', wanted)
        methods.add_row(escape(name), *_gradient(weight.measured), *numbers)
    console.print(methods)
    print(found.block())


def _gradient(item: Measured) -> tuple[str, str]:
    return ('none', '-') if math.isnan(item.gradient) else (f'{item.gradient:.3g}', f'x {item.spread:.2f}')
