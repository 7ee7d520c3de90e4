"""Configs that test small models on generated images in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _helpers import tiny, tiny_seg
from mmkd_plugin.datasets.segmentation import CocoMiniSegDataset


def loader(dataset: dict) -> dict:
    """Config of a dataloader of single images."""
    return dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)


def detector(data: Path) -> dict:
    """Config that tests a small detector."""
    annotations = 'annotations/instances_val.json'
    pipeline: list[dict] = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    dataset: dict[str, Any] = dict(
        type='mmkd_plugin.CocoMiniDataset',
        data_root=f'{data}/',
        ann_file=annotations,
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=pipeline,
    )
    return dict(
        default_scope='mmdet',
        model=tiny.retinanet(),
        test_dataloader=loader(dataset),
        test_evaluator=dict(type='CocoMetric', ann_file=str(data / annotations), metric='bbox'),
    )


def segmentor(data: Path) -> dict:
    """Config that tests a small segmentor."""
    pipeline: list[dict] = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset: dict[str, Any] = dict(
        type='mmkd_plugin.CocoMiniSegDataset',
        data_root=str(data),
        data_prefix=dict(img_path='val', seg_map_path='semantic/val'),
        pipeline=pipeline,
    )
    return dict(
        default_scope='mmseg',
        model=tiny_seg.pspnet(classes=len(CocoMiniSegDataset.METAINFO['classes'])),
        test_dataloader=loader(dataset),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
    )
