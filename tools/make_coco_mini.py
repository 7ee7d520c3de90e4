"""Make COCO-mini: generate it, or choose a small, class-balanced part of a real COCO tree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmkd_plugin.cli import CommandParser, plain_errors

if TYPE_CHECKING:
    from mmkd_plugin.datasets.coco_mini import CocoSplit

_ONLY_COCO = ('split_names', 'classes', 'symlink', 'maps', 'ann_train', 'img_train', 'ann_val', 'img_val')


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--out', help='folder to make (data/coco_mini, or data/coco_subset with --from-coco)')
    parser.add_argument('--seed', type=int, default=0, help='other seeds give other images (default 0)')
    parser.add_argument('--train', type=int, default=500, help='number of training images (default 500)')
    parser.add_argument('--val', type=int, default=400, help='number of validation images (default 400)')
    parser.add_argument('--size', type=int, help='height and width of generated images in pixels (default 128)')
    parser.add_argument('--from-coco', metavar='DIR', help='choose from this COCO tree instead of generating')
    real = parser.add_argument_group('with --from-coco')
    real.add_argument('--split-names', nargs=2, metavar=('TRAIN', 'VAL'), help='default: train2017 val2017')
    real.add_argument('--classes', nargs='+', metavar='NAME', help='classes to keep (default: all)')
    real.add_argument('--symlink', action='store_true', help='link the images instead of copying them')
    real.add_argument(
        '--maps',
        nargs='?',
        const='stuffthingmaps',
        metavar='DIR',
        help='write the maps of COCO-Stuff too, from this folder of the tree (stuffthingmaps), which has one per split',
    )
    for split in ('train', 'val'):
        real.add_argument(f'--ann-{split}', metavar='FILE', help=f'annotation file of {split}, relative to the tree')
        real.add_argument(f'--img-{split}', metavar='DIR', help=f'image folder of {split}, relative to the tree')
    args = parser.parse_args(argv)
    if args.from_coco is None:
        for name in _ONLY_COCO:
            if getattr(args, name):
                parser.error(f'--{name.replace("_", "-")} needs --from-coco')
    elif args.size is not None:
        parser.error('--size is for generated images; --from-coco keeps the images as they are')
    return args


def _source(args: argparse.Namespace, split: str, name: str) -> CocoSplit:
    from mmkd_plugin.datasets.coco_mini import CocoSplit, coco_split

    root = Path(args.from_coco)
    found = coco_split(root, name, getattr(args, split), args.maps)
    annotations, images = getattr(args, f'ann_{split}'), getattr(args, f'img_{split}')
    return CocoSplit(
        root / annotations if annotations else found.annotations,
        root / images if images else found.images,
        found.count,
        found.maps,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        argv: Arguments; those of the process if None.

    Raises:
        SystemExit: Of status 2 behind a sentence, if the data cannot be made.
    """
    with plain_errors(argv, 'the same command makes what is missing.'):
        args = _parse(argv)
        from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini, ensure_coco_subset

        if args.from_coco is None:
            size: dict[str, Any] = {} if args.size is None else {'size': args.size}
            out = Path(args.out or 'data/coco_mini')
            ensure_coco_mini(out, MiniSettings(args.seed, args.train, args.val, **size))
        else:
            out = Path(args.out or 'data/coco_subset')
            train, val = args.split_names or ('train2017', 'val2017')
            ensure_coco_subset(
                out, _source(args, 'train', train), _source(args, 'val', val), args.seed, args.classes, args.symlink
            )


if __name__ == '__main__':
    main()
