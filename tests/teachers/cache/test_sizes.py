"""The size that each image has in a batch of its own, without its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
from _helpers.tiny import retinanet
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from PIL import Image as Files

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache.pipeline import require_repeatable
from mmkd_plugin.teachers.cache.sizes import Image, Padding, require_plain_batches, size_on_disk

RESIZES: list[list[dict]] = [
    [dict(type='Resize', scale=(96, 64), keep_ratio=True)],
    [dict(type='Resize', scale=(96, 64), keep_ratio=False)],
    [dict(type='Resize', scale_factor=0.7, keep_ratio=True)],
    [dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='Pad', size=(100, 90))],
    [dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='Pad', pad_to_square=True)],
    [dict(type='Pad', size_divisor=48)],
]


def preprocessor(**changes: Any) -> Any:
    return MODELS.build(Config(retinanet(**changes))).data_preprocessor


@pytest.mark.parametrize('steps', RESIZES, ids=str)
@pytest.mark.parametrize('size', [(50, 70), (81, 40)])
def test_the_size_is_that_of_the_batch(steps: list, size: tuple, tmp_path: Path) -> None:
    path = str(tmp_path / 'image.png')
    mmcv.imwrite(np.zeros((*size, 3), np.uint8), path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        whole = [dict(type='LoadImageFromFile'), *steps, dict(type='PackDetInputs')]
        pipelines = require_repeatable(dict(type='CocoDataset', pipeline=whole))
        item = Compose(whole)(dict(img_path=path, img_id=1))
    own = preprocessor()
    batch = own(pseudo_collate([item]), training=True)['inputs']
    assert Padding(pipelines, own).of(Image(path, '', 0, None)) == tuple(batch.shape[2:])
    assert Padding(pipelines, own).of(Image('not read', '', 0, size)) == tuple(batch.shape[2:])


def test_batches_shrunk_and_padded() -> None:
    augments = [dict(type='BatchFixedSizePad', size=(128, 160)), dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)]
    with DefaultScope.overwrite_default_scope('mmdet'):
        steps = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
        pipelines = require_repeatable(dict(type='CocoDataset', pipeline=steps))
        own = preprocessor(batch_augments=augments)
    require_plain_batches(own)
    assert Padding(pipelines, own).of(Image('not read', '', 0, (100, 30))) == (64, 80)


def test_an_image_that_is_turned_while_it_is_read(tmp_path: Path) -> None:
    image = Files.new('RGB', (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.jpg', exif=exif)
    assert size_on_disk(str(tmp_path / 'turned.jpg')) == (40, 20)
    assert mmcv.imread(str(tmp_path / 'turned.jpg')).shape[:2] == (40, 20)


def test_augmentations_of_batches_are_refused() -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        own = preprocessor(batch_augments=[dict(type='BatchSyncRandomResize', random_size_range=(64, 96))])
    with pytest.raises(DistillError, match='BatchSyncRandomResize among the batch_augments'):
        require_plain_batches(own)
