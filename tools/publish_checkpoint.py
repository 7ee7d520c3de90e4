"""Reduce a training checkpoint to its weights and class names, optionally in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import CommandParser, plain_errors


def main(argv: Sequence[str] | None = None) -> None:
    """Publish.

    Args:
        argv: Arguments; those of the process if None.
    """
    parser = CommandParser(description=__doc__)
    parser.add_argument('source', type=Path, help='checkpoint of a training run')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument('--half', action='store_true', help='store floating-point weights in half precision')
    with plain_errors(argv):
        args = parser.parse_args(argv)
        from mmkd_plugin.study.publish import publish_checkpoint

        size = publish_checkpoint(args.source, args.target, args.half)
        print(f'{args.target}: {size / 2**20:.2f} MiB')


if __name__ == '__main__':
    main()
