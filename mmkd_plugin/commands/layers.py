"""``mmkd layers``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmkd_plugin.cli import add_config_options, command_parser, read_config


def main(arguments: Sequence[str]) -> int:
    """List the layers of a config's models."""
    args = _parser().parse_args(arguments)

    from rich.console import Console

    from mmkd_plugin.study.layer_tables import print_layers
    from mmkd_plugin.study.layers import config_layers

    # Without a terminal, paths must not be folded where a line would end.
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    print_layers(console, config_layers(read_config(args), args.teacher), args.match, args.all)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        'layers',
        'List what can be tapped in student and teacher, side by side: what methods know by name (levels, heads,\n'
        'anchors) and every module that returns a feature map, with the shape for the image that it was run on,\n'
        'stride and parameters. A path that is listed can be the tap of a method:\n'
        "methods=dict(mine=dict(type='Feature', tap=<path>, loss=...)). No weights are read.",
        "mmkd layers mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py --match 'neck.*'",
    )
    parser.add_argument('config', help='config of a model, with or without a distill block: a file, or a zoo name')
    parser.add_argument(
        '--match',
        metavar='PATTERN',
        help='list the modules whose path matches: with *, ? or [...] the whole path, without any part of it',
    )
    parser.add_argument('--all', action='store_true', help='list the modules within others too')
    parser.add_argument('--teacher', metavar='NAME', help='which of several teachers; the first by default')
    add_config_options(parser)
    return parser
