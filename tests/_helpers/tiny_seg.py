"""Small segmentors on made-up images: a whole run takes seconds and needs no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from torch.utils.data import Dataset

from _helpers import tiny

register_all_modules(init_default_scope=False)

CLASSES = ('ground', 'square', 'bar')
IGNORED = 255


@DATASETS.register_module(force=True)
class TinyMaps(Dataset):
    """Bright rectangles on noise, 64 x 64, with a rim of ignored pixels; with ``ignored`` no pixel counts."""

    metainfo = dict(classes=CLASSES)

    def __init__(self, length: int = 8, ignored: bool = False) -> None:
        self.length = length
        self.ignored = ignored

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.RandomState(index)
        image = random.randint(0, 60, (3, 64, 64)).astype(np.uint8)
        label = np.zeros((64, 64), np.int64)
        for kind in (1, 2):
            x, y = random.randint(0, 40, 2)
            image[:, y : y + 20, x : x + 20] = 100 * kind
            label[y : y + 20, x : x + 20] = kind
        label[:4] = IGNORED
        if self.ignored:
            label[:] = IGNORED
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(label)[None])
        return dict(inputs=torch.from_numpy(image), data_samples=sample)


def pspnet(
    width: int = 16, classes: int = len(CLASSES), auxiliary: bool = True, dropout: float = 0.1, **head: Any
) -> dict:
    """Config of a PSPNet with ``width`` channels in its heads and an output stride of 8."""
    norm = dict(type='BN', requires_grad=True)
    common = dict(num_classes=classes, norm_cfg=norm, dropout_ratio=dropout, align_corners=False)
    model = dict(
        type='EncoderDecoder',
        _scope_='mmseg',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[100.0, 110.0, 120.0],
            std=[50.0, 60.0, 70.0],
            bgr_to_rgb=True,
            pad_val=0,
            seg_pad_val=IGNORED,
            size=(64, 64),
        ),
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            base_channels=8,
            stem_channels=8,
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            norm_cfg=norm,
            contract_dilation=True,
        ),
        decode_head=dict(
            type='PSPHead', in_channels=64, in_index=3, channels=width, pool_scales=(1, 2), **{**common, **head}
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    if auxiliary:
        loss = dict(type='CrossEntropyLoss', loss_weight=0.4)
        model['auxiliary_head'] = dict(
            type='FCNHead',
            in_channels=32,
            in_index=2,
            channels=width,
            num_convs=1,
            concat_input=False,
            loss_decode=loss,
            **common,
        )
    return model


def block(method: dict, **changes: Any) -> dict:
    """A distill block with one method and a wider, untrained teacher."""
    values = dict(teacher=pspnet(width=24), teacher_ckpt='random', methods=dict(seg=method))
    values.update(changes)
    return values


def run_config(work_dir: Path | str, iterations: int = 2, **changes: Any) -> Config:
    """A run on made-up images; a ``distill`` block is added by the caller."""
    values: dict[str, Any] = dict(
        default_scope='mmseg',
        model=pspnet(),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(type='TinyMaps'),
        ),
    )
    values.update(changes)
    return tiny.run_config(work_dir, iterations, **values)


def batch(model: Any, indices: tuple[int, ...] = (0, 1), **options: Any) -> dict:
    """A preprocessed batch."""
    items = [TinyMaps(**options)[index] for index in indices]
    data = dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items])
    return model.data_preprocessor(data, training=True)
