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
_AREAS = (
    'areas',
    "FGD's foreground, background and weights on a training image, by level",
    'mmkd visualize areas mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py --image-index 3',
)
_ATTENTION = (
    'attention',
    'the spatial and channel attention of the teacher and its students',
    'mmkd visualize attention mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py '
    '--image data/coco_mini/val/000000500001.png',
)
_FEATURES = (
    'features',
    "how far students' features lie from the teacher's, before and after distillation",
    'mmkd visualize features mmkd_plugin::coco_mini/pixel_pair_pspnet_r34_to_r18.py distilled.pth '
    '--image data/coco_mini/val/000000500001.png',
)
_PREDICTIONS = (
    'predictions',
    'the boxes or label maps of the teacher and its students',
    'mmkd visualize predictions mmkd_plugin::coco_mini/pixel_pair_pspnet_r34_to_r18.py distilled.pth --image-index 1',
)


def main(arguments: Sequence[str]) -> int:
    """Draw pictures and print their paths."""
    args = _parser().parse_args(arguments)
    for path in args.draw(args):
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser('visualize', 'Draw what a method compares, and what it brings.', _MASK[2])
    pictures = parser.add_subparsers(dest='picture', required=True, metavar='PICTURE')

    similarity = _add(pictures, *_SIMILARITY)
    similarity.add_argument('config', help='config of a segmentor with a distill block')
    similarity.add_argument('checkpoint', help='checkpoint of the distilled student')
    _add_student(similarity)
    similarity.add_argument('--image', type=Path, required=True, help='image file')
    similarity.add_argument('--pixel', type=int, nargs=2, required=True, metavar=('X', 'Y'), help='column and row')
    similarity.set_defaults(draw=_similarity)

    for texts, method, draw in ((_MASK, 'FGI', _mask), (_AREAS, 'FGD', _areas)):
        masks = _add(pictures, *texts)
        masks.add_argument('config', help=f'config of a detector with {method} in its distill block')
        masks.add_argument('--image-index', type=int, default=0, help='of the training image, from 0')
        masks.set_defaults(draw=draw)

    for texts, draw in ((_ATTENTION, _attention), (_FEATURES, _features), (_PREDICTIONS, _predictions)):
        models = _add(pictures, *texts)
        models.add_argument('config', help='config with a distill block')
        models.add_argument('checkpoint', nargs='?', help='checkpoint of the distilled student')
        _add_student(models)
        which = models.add_mutually_exclusive_group(required=True)
        which.add_argument('--image', type=Path, nargs='+', metavar='FILE', help='image files, a figure for each')
        which.add_argument('--image-index', type=int, help='of an image in the test data, from 0')
        if draw is not _predictions:
            models.add_argument('--method', help="of the distill block, whose maps are shown; FGD's by default")
        models.set_defaults(draw=draw)

    for name, picture in pictures.choices.items():
        default = Path('work_dirs') / f'{name.replace("-", "_")}.png'
        several = '; of several images each adds its name' if name in ('attention', 'features', 'predictions') else ''
        picture.add_argument('--out', type=Path, default=default, help=f'PNG to write{several}')
        add_config_options(picture)
    return parser


def _add(pictures: argparse._SubParsersAction, name: str, line: str, example: str) -> argparse.ArgumentParser:
    return pictures.add_parser(name, help=line, **help_texts(f'Draw {line}.', example))


def _add_student(picture: argparse.ArgumentParser) -> None:
    picture.add_argument('--student', help='checkpoint of the student alone, shown beside it')


def _students(args: argparse.Namespace) -> dict[str, str]:
    """The checkpoints by the name shown."""
    given = {'student alone': args.student, 'distilled': args.checkpoint}
    return {name: checkpoint for name, checkpoint in given.items() if checkpoint}


def _similarity(args: argparse.Namespace) -> list[Path]:
    from mmkd_plugin.study.pictures.images import require_apart
    from mmkd_plugin.study.pictures.similarity import similarity_picture

    require_apart([args.out], [args.image])
    return [similarity_picture(read_config(args), _students(args), args.image, tuple(args.pixel), args.out)]


def _mask(args: argparse.Namespace) -> list[Path]:
    from mmkd_plugin.study.pictures.imitation import imitation_picture

    return [imitation_picture(read_config(args), args.image_index, args.out)]


def _areas(args: argparse.Namespace) -> list[Path]:
    from mmkd_plugin.study.pictures.areas import areas_picture

    return [areas_picture(read_config(args), args.image_index, args.out)]


def _attention(args: argparse.Namespace) -> list[Path]:
    from mmkd_plugin.study.pictures.features import attention_pictures
    from mmkd_plugin.study.pictures.images import wanted_pictures

    config = read_config(args)
    images = wanted_pictures(config, args.image or [], args.image_index, args.out)
    return attention_pictures(config, _students(args), images, args.method)


def _features(args: argparse.Namespace) -> list[Path]:
    from mmkd_plugin.study.pictures.features import feature_pictures
    from mmkd_plugin.study.pictures.images import wanted_pictures

    if not _students(args):
        raise DistillError(
            'A difference of features needs a student; give the checkpoint of the distilled one, or --student FILE.'
        )
    config = read_config(args)
    images = wanted_pictures(config, args.image or [], args.image_index, args.out)
    return feature_pictures(config, _students(args), images, args.method)


def _predictions(args: argparse.Namespace) -> list[Path]:
    from mmkd_plugin.study.pictures.images import wanted_pictures
    from mmkd_plugin.study.pictures.predictions import prediction_pictures

    config = read_config(args)
    images = wanted_pictures(config, args.image or [], args.image_index, args.out)
    return prediction_pictures(config, _students(args), images)
