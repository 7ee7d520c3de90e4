"""``mmkd visualize``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import add_config_options, command_parser, help_texts, read_config
from mmkd_plugin.errors import DistillError

_SIMILARITY = (
    'similarity',
    'how similar a pixel is to all others, to the teacher and to its students',
    'mmkd visualize similarity mmkd_plugin::coco_mini/pixel_pair_pspnet_r34_to_r18.py distilled.pth '
    '--image data/coco_mini/val/000000500001.png --pixel 40 60',
)
_MASK = (
    'imitation-mask',
    'the cells that FGI imitates on a training image, by level',
    'mmkd visualize imitation-mask mmkd_plugin::coco_mini/fgi_retina_r34_to_r18.py --image-index 3',
)


def main(arguments: Sequence[str]) -> int:
    """Draw a picture and print its path."""
    args = _parser().parse_args(arguments)
    print(args.draw(args))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser('visualize', 'Draw what a method compares.', _MASK[2])
    pictures = parser.add_subparsers(dest='picture', required=True, metavar='PICTURE')

    similarity = _add(pictures, *_SIMILARITY)
    similarity.add_argument('config', help='config of a segmentor with a distill block')
    similarity.add_argument('checkpoint', help='checkpoint of the distilled student')
    similarity.add_argument('--student', help='checkpoint of the student alone, shown beside it')
    similarity.add_argument('--image', type=Path, required=True, help='image file')
    similarity.add_argument('--pixel', type=int, nargs=2, required=True, metavar=('X', 'Y'), help='column and row')
    similarity.add_argument('--out', type=Path, default=Path('work_dirs/similarity.png'), help='PNG to write')
    similarity.set_defaults(draw=_similarity)

    mask = _add(pictures, *_MASK)
    mask.add_argument('config', help='config of a detector with FGI in its distill block')
    mask.add_argument('--image-index', type=int, default=0, help='of the training image, from 0')
    mask.add_argument('--out', type=Path, default=Path('work_dirs/imitation_mask.png'), help='PNG to write')
    mask.set_defaults(draw=_mask)

    for picture in (similarity, mask):
        add_config_options(picture)
    return parser


def _add(pictures: argparse._SubParsersAction, name: str, line: str, example: str) -> argparse.ArgumentParser:
    return pictures.add_parser(name, help=line, **help_texts(f'Draw {line}.', example))


def _similarity(args: argparse.Namespace) -> Path:
    from mmkd_plugin.study.pictures.similarity import similarity_picture

    if args.out.exists() and args.image.exists() and args.out.samefile(args.image):
        raise DistillError(f'--out {args.out} is the image itself; give another file to write.')
    students = {'student alone': args.student} if args.student else {}
    students['distilled'] = args.checkpoint
    return similarity_picture(read_config(args), students, args.image, tuple(args.pixel), args.out)


def _mask(args: argparse.Namespace) -> Path:
    from mmkd_plugin.study.pictures.imitation import imitation_picture

    return imitation_picture(read_config(args), args.image_index, args.out)
