"""Generate COCO-mini, a small detection and segmentation data set that is the same on every machine."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track

from mmkd_plugin.datasets.coco_mini.annotation import annotation, json_bytes
from mmkd_plugin.datasets.coco_mini.folder import ensure_folder
from mmkd_plugin.datasets.coco_mini.png import png
from mmkd_plugin.datasets.coco_mini.prng import Stream
from mmkd_plugin.datasets.coco_mini.scene import compose
from mmkd_plugin.datasets.coco_mini.shapes import CLASSES
from mmkd_plugin.errors import DistillError

COCO_MINI_CLASSES = tuple(CLASSES)
"""Names of the classes in the order of their labels; a category's id is the label plus one."""

COCO_MINI_PALETTE = [(220, 60, 40), (240, 180, 30), (50, 160, 70), (40, 120, 220), (160, 80, 200), (240, 120, 180)]
"""Red, green and blue of each class in pictures."""

COCO_MINI_SHA256 = '587cde7fd8cf8dd4360efbcaef22b2e70bb5b08da1fb23db226405adcccd2f7b'
"""Checksum of all files made with the default settings."""

# Ids of pictures are unique over both splits, as COCO's are, and the first picture of a split does not depend on the
# size of the other.
_FIRST_IDS = {'train': 1, 'val': 500001}


@dataclass(frozen=True)
class MiniSettings:
    """What is generated.

    Attributes:
        seed: Other seeds give other pictures.
        train: Training images.
        val: Validation images.
        size: Height and width of an image in pixels; shapes grow with it.
    """

    seed: int = 0
    train: int = 500
    val: int = 400
    size: int = 128

    def __post_init__(self) -> None:
        """Refuse what cannot be generated."""
        if not 0 <= self.seed < 1 << 63:
            raise DistillError(f'The seed is {self.seed}; it must be a whole number from 0 on.')
        for split in _FIRST_IDS:
            if not 1 <= getattr(self, split) <= 500000:
                raise DistillError(f'The number of {split} images is {getattr(self, split)}; it must be 1 to 500000.')
        if not 64 <= self.size <= 2048:
            raise DistillError(f'The image size is {self.size}; it must be 64 to 2048 pixels.')


def _write_split(root: Path, settings: MiniSettings, split: str) -> None:
    first = _FIRST_IDS[split]
    pictures, semantic = root / split, root / 'semantic' / split
    pictures.mkdir(parents=True)
    semantic.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    numbers = range(first, first + getattr(settings, split))
    for image in track(numbers, split, disable=not sys.stdout.isatty()):
        scene = compose(Stream(settings.seed, settings.size, image), settings.size)
        name = f'{image:012d}.png'
        (pictures / name).write_bytes(png(scene.image))
        (semantic / name).write_bytes(png(scene.semantic))
        images.append({'id': image, 'file_name': name, 'height': settings.size, 'width': settings.size})
        for number, instance in enumerate(scene.instances):
            annotations.append(annotation(instance, image * 100 + number, image))
    content = {
        'info': {'description': f'COCO-mini, {split}', **dataclasses.asdict(settings)},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': label + 1, 'name': name, 'supercategory': 'shape'} for label, name in enumerate(COCO_MINI_CLASSES)
        ],
    }
    target = root / 'annotations' / f'instances_{split}.json'
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(json_bytes(content))


def _build(root: Path, settings: MiniSettings) -> None:
    for split in _FIRST_IDS:
        _write_split(root, settings, split)


def ensure_coco_mini(
    root: str | Path = 'data/coco_mini',
    settings: MiniSettings | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Generate COCO-mini, unless it is there already.

    The folder is laid out as COCO's: ``train/``, ``val/``, ``annotations/instances_train.json`` and
    ``instances_val.json``; ``semantic/train/`` and ``semantic/val/`` hold a map for each image.

    - Images are PNG files of six classes of shapes on textured backgrounds. Some images are empty. Shapes that look
      like an object with a detail wrong are background.
    - Masks, areas and boxes are those of the visible part; shapes hide one another by half at the most. Masks are
      uncompressed run lengths.
    - A crowd (``iscrowd`` 1) is a group of tiny shapes of one class.
    - Semantic maps hold 0 for background, ``label + 1`` for objects and 255, to be ignored, for crowds.

    Args:
        root: The folder.
        settings: What to generate.
        report: Takes the lines for the user; on a terminal a bar shows the progress as well.

    Returns:
        The folder.

    Raises:
        DistillError: If the folder holds something else, or the default settings give another checksum than
            ``COCO_MINI_SHA256``.
    """
    settings = settings or MiniSettings()
    ensure_folder(
        Path(root),
        {'source': 'generated', **dataclasses.asdict(settings)},
        generator=COCO_MINI_SHA256,
        build=partial(_build, settings=settings),
        expected=COCO_MINI_SHA256 if settings == MiniSettings() else None,
        report=report,
    )
    return Path(root)
