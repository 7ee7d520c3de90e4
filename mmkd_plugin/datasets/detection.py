"""COCO-mini for detectors."""

from __future__ import annotations

from mmdet.datasets import CocoDataset

from mmkd_plugin.datasets.coco_mini import COCO_MINI_CLASSES, COCO_MINI_PALETTE
from mmkd_plugin.registry import DATASETS


@DATASETS.register_module()
class CocoMiniDataset(CocoDataset):
    """MMDetection's COCO data set with the classes of the generated COCO-mini.

    For a part of the real COCO use MMDetection's own ``CocoDataset`` with ``metainfo=dict(classes=...)``.
    """

    METAINFO = {'classes': COCO_MINI_CLASSES, 'palette': COCO_MINI_PALETTE}
