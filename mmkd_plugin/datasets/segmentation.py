"""COCO-mini for segmentors."""

from __future__ import annotations

from typing import Any

from mmseg.datasets import BaseSegDataset

from mmkd_plugin.datasets.coco_mini import COCO_MINI_CLASSES, COCO_MINI_PALETTE
from mmkd_plugin.registry import DATASETS


@DATASETS.register_module()
class CocoMiniSegDataset(BaseSegDataset):
    """The semantic maps of the generated COCO-mini: background is class 0, crowds are ignored (255).

    Args:
        img_suffix: End of the images' names.
        seg_map_suffix: End of the maps' names.
        **kwargs: Those of ``BaseSegDataset``; ``data_prefix`` is
            ``dict(img_path='train', seg_map_path='semantic/train')`` or the same with ``val``.
    """

    METAINFO = {'classes': ('background', *COCO_MINI_CLASSES), 'palette': [(0, 0, 0), *COCO_MINI_PALETTE]}

    def __init__(self, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
