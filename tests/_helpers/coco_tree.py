"""A small tree laid out as the real COCO, with what makes real ones hard: gaps in the ids, crowds, empty images."""

from __future__ import annotations

import json
from pathlib import Path

import mmcv
import numpy as np
from mmdet.datasets import CocoDataset

NO_CATEGORY = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""The ids between 1 and 90 that COCO leaves out."""

NO_STUFF = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""The numbers below 182 that no pixel of COCO-Stuff has."""

CATEGORY_IDS = [number for number in range(1, 91) if number not in NO_CATEGORY]
HEIGHT, WIDTH = 48, 64


def coco_tree(root: Path, splits: dict[str, int]) -> Path:
    """Write images of noise, boxes on all but every fourth, crowds, and the maps of COCO-Stuff.

    Args:
        root: The folder to make.
        splits: Number of images by split.

    Returns:
        The folder.
    """
    draw = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for offset, (name, count) in enumerate(splits.items()):
        images, annotations = [], []
        for number in range(count):
            identity = 139 + 1000 * offset + 7 * number
            file_name = f'{identity:012d}.jpg'
            images.append(dict(id=identity, file_name=file_name, height=HEIGHT, width=WIDTH, license=4))
            pixels = draw.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            mmcv.imwrite(pixels, str(root / name / file_name))
            _write_map(root / 'stuffthingmaps' / name / f'{identity:012d}.png', draw)
            if number % 4 < 3:
                annotations += _objects(identity, number, draw)
        categories = [dict(id=key, name=label) for key, label in zip(CATEGORY_IDS, CocoDataset.METAINFO['classes'])]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{name}.json').write_text(json.dumps(content))
    return root


def _objects(image: int, number: int, draw: np.random.Generator) -> list[dict]:
    """Two objects and a crowd."""
    found = []
    for part in range(3):
        x, y = (float(value) for value in draw.integers(0, 20, 2))
        width, height = (float(value) for value in draw.integers(12, 28, 2))
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        crowd = part == 2
        everything = dict(size=[HEIGHT, WIDTH], counts=[0, HEIGHT * WIDTH])
        found.append(
            dict(
                id=10 * image + part,
                image_id=image,
                category_id=CATEGORY_IDS[(31 * number + 17 * part) % 80],
                iscrowd=int(crowd),
                bbox=[x, y, width, height],
                area=width * height,
                segmentation=everything if crowd else [corners],
            )
        )
    return found


def _write_map(path: Path, draw: np.random.Generator) -> None:
    """Blocks of classes, with the number 255 for what has none."""
    used = np.append(np.setdiff1d(np.arange(182), NO_STUFF), 255)
    blocks = draw.choice(used, (HEIGHT // 8, WIDTH // 8)).astype(np.uint8)
    mmcv.imwrite(blocks.repeat(8, 0).repeat(8, 1), str(path))
