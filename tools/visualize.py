"""Draw what a method compares: similarities of a pixel, or the cells that FGI imitates."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mmkd_plugin.cli import plain_errors, read_config
from mmkd_plugin.study.pictures.imitation import imitation_picture
from mmkd_plugin.study.pictures.similarity import similarity_picture


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    similarity = commands.add_parser(
        'similarity', help='how similar a pixel is to all others, to the teacher and to its students'
    )
    similarity.add_argument('config', help='config of a segmentor with a distill block')
    similarity.add_argument('checkpoint', help='checkpoint of the distilled student')
    similarity.add_argument('--student', help='checkpoint of the student alone, shown beside it')
    similarity.add_argument('--image', type=Path, required=True, help='image file')
    similarity.add_argument('--pixel', type=int, nargs=2, required=True, metavar=('X', 'Y'), help='column and row')
    similarity.add_argument('--out', type=Path, default=Path('work_dirs/similarity.png'))
    mask = commands.add_parser('imitation-mask', help='the cells that FGI imitates on a training image, by level')
    mask.add_argument('config', help='config of a detector with FGI in its distill block')
    mask.add_argument('--image-index', type=int, default=0, help='of the training image, from 0')
    mask.add_argument('--out', type=Path, default=Path('work_dirs/imitation_mask.png'))
    for command in (similarity, mask):
        command.add_argument('--cfg-options', nargs='+', action=DictAction, help='override config entries')
        command.set_defaults(launcher='none', work_dir=None, local_rank=0)
    return parser.parse_args()


def main() -> None:
    """Draw."""
    args = parse_args()
    with plain_errors():
        config = read_config(args)
        if args.command == 'similarity':
            students = {'student alone': args.student} if args.student else {}
            students['distilled'] = args.checkpoint
            out = similarity_picture(config, students, args.image, tuple(args.pixel), args.out)
        else:
            out = imitation_picture(config, args.image_index, args.out)
        print(out)


if __name__ == '__main__':
    main()
