"""``mmkd print-config``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import add_common_arguments, command_parser, read_config
from mmkd_plugin.errors import DistillError


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
    from mmkd_plugin.utilities.files import output_file

    if args.out:
        _require_place(args.out, args.config)
    cfg = expand_config(read_config(args))
    if args.out:
        with output_file(Path(args.out)) as temporary:
            temporary.write_text(cfg.pretty_text, encoding='utf-8')
    else:
        sys.stdout.write(cfg.pretty_text)
    return 0


def _require_place(out: str, config: str) -> None:
    """Refuse what MMEngine would write in another format, or over the config itself."""
    if Path(out).suffix != '.py':
        raise DistillError(f'-o {out} is no .py file, which a config is; give a name such as expanded.py.')
    if Path(out).is_file() and Path(config).is_file() and os.path.samefile(out, config):
        raise DistillError(f'-o {out} is the config itself; give another file to write.')
