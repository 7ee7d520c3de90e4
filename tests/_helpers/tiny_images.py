"""A data set of image files for tiny detectors, and runs on it that keep the records of their teacher."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from _helpers.tiny import CLASSES, retinanet, run_config

SIZE = 64


def write_images(root: Path, count: int = 6, size: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> Path:
    """Write images of noise with a bright box each, and their annotations in COCO's form."""
    draw = np.random.RandomState(seed)
    images, annotations = [], []
    for number in range(count):
        height, width = size
        pixels = draw.randint(0, 100, (height, width, 3)).astype(np.uint8)
        x, y = (int(value) for value in draw.randint(0, 30, 2))
        pixels[y : y + 20, x : x + 24] += 120
        name = f'{number:03d}.png'
        mmcv.imwrite(pixels, str(root / 'images' / name))
        images.append(dict(id=number + 1, file_name=name, height=height, width=width))
        box = dict(bbox=[x, y, 24, 20], area=480, category_id=1 + number % 2, iscrowd=0)
        annotations.append(dict(id=number + 1, image_id=number + 1, **box))
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations.json').write_text(json.dumps(content))
    return root


def save_teacher(path: Path, config: dict, seed: int = 1) -> str:
    """Write weights for a teacher, with statistics of batch norm that make each layer matter."""
    torch.manual_seed(seed)
    model = MODELS.build(Config(config))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES))), path)
    return str(path)


def pipeline(*steps: Any, resize: Any = None) -> list[dict]:
    """A pipeline with some steps before its packing."""
    return [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        resize or dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=True),
        dict(type='RandomFlip', prob=0.5),
        *steps,
        dict(type='PackDetInputs'),
    ]


def kept_config(data: Path, work_dir: Path, methods: dict | None = None, **changes: Any) -> Config:
    """A run whose teacher's records are kept beside the data.

    Args:
        data: From :func:`write_images`.
        work_dir: Of the run.
        methods: Of the block; FGD by default.
        **changes: Of the block.
    """
    teacher = changes.pop('teacher', retinanet(width=24))
    checkpoint = data / 'teacher.pth'
    if not checkpoint.exists():
        save_teacher(checkpoint, teacher)
    dataset = dict(
        type='CocoDataset',
        data_root=str(data),
        ann_file='annotations.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=pipeline(),
    )
    cfg = run_config(work_dir, iterations=changes.pop('iterations', 3))
    cfg.train_dataloader = dict(
        batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
    )
    values: dict[str, Any] = dict(
        teacher=teacher,
        teacher_ckpt=str(checkpoint),
        methods=methods or dict(fgd=dict(type='FGD')),
        teacher_cache=dict(dir=str(data / 'cache')),
        self_check=False,
    )
    values.update(changes)
    cfg.distill = values
    return cfg


def entries(data: Path) -> dict[str, bytes]:
    """The content of every finished entry of all stores beside the data."""
    found = sorted((data / 'cache').rglob('*.safetensors'))
    return {os.path.relpath(path, data / 'cache'): path.read_bytes() for path in found}
