"""COCO-mini: a generated data set, or a small part of the real COCO; needs neither mmdet nor mmseg."""

from mmkd_plugin.datasets.coco_mini.generate import (
    COCO_MINI_CLASSES,
    COCO_MINI_PALETTE,
    COCO_MINI_SHA256,
    MiniSettings,
    ensure_coco_mini,
)
from mmkd_plugin.datasets.coco_mini.subset import CocoSplit, coco_split, ensure_coco_subset

__all__ = [
    'COCO_MINI_CLASSES',
    'COCO_MINI_PALETTE',
    'COCO_MINI_SHA256',
    'CocoSplit',
    'MiniSettings',
    'coco_split',
    'ensure_coco_mini',
    'ensure_coco_subset',
]
