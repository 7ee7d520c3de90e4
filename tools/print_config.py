"""Print the MMRazor config that a distill block stands for; it trains to the same numbers."""

from __future__ import annotations

import argparse
import sys

from mmkd_plugin.block import expand_config
from mmkd_plugin.cli import add_common_arguments, plain_errors, read_config


def main() -> None:
    """Expand and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config with a distill block')
    parser.add_argument('-o', '--out', help='write to this .py file instead of the console')
    add_common_arguments(parser)
    args = parser.parse_args()
    with plain_errors():
        cfg = expand_config(read_config(args))
        if args.out:
            cfg.dump(args.out)
        else:
            sys.stdout.write(cfg.pretty_text)


if __name__ == '__main__':
    main()
