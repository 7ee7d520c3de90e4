"""``mmkd print-config``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmkd_plugin.cli import add_common_arguments, command_parser, read_config


def main(arguments: Sequence[str]) -> int:
    """Expand a config and print it."""
    parser = command_parser(
        'print-config',
        'Print the MMRazor config that a distill block stands for; it trains to the same numbers.',
        'mmkd print-config mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py --out expanded.py',
    )
    parser.add_argument('config', help='config with a distill block: a file, or a zoo name')
    parser.add_argument('-o', '--out', help='write to this .py file instead of the console')
    add_common_arguments(parser)
    args = parser.parse_args(arguments)

    from mmkd_plugin.block import expand_config

    cfg = expand_config(read_config(args))
    if args.out:
        cfg.dump(args.out)
    else:
        sys.stdout.write(cfg.pretty_text)
    return 0
