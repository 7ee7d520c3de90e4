"""Data sets; those of a package that is not installed are left out."""

from contextlib import suppress

from mmkd_plugin.datasets.blur import RandomGaussianBlur
from mmkd_plugin.datasets.coco_mini import COCO_MINI_CLASSES, COCO_MINI_PALETTE, ensure_coco_mini
from mmkd_plugin.datasets.record_key import RecordKey
from mmkd_plugin.datasets.unlabelled import MixedBatchSampler, MixedDataset, NoLabels, UnlabelledImages

__all__ = [
    'COCO_MINI_CLASSES',
    'COCO_MINI_PALETTE',
    'MixedBatchSampler',
    'MixedDataset',
    'NoLabels',
    'RandomGaussianBlur',
    'RecordKey',
    'UnlabelledImages',
    'ensure_coco_mini',
]

# A config that needs one of these also names models of the package, and then hears from it what is missing.
with suppress(ImportError):
    from mmkd_plugin.datasets.detection import CocoMiniDataset

    __all__ += ['CocoMiniDataset']
with suppress(ImportError):
    from mmkd_plugin.datasets.segmentation import CocoMiniSegDataset

    __all__ += ['CocoMiniSegDataset']
with suppress(ImportError):
    from mmkd_plugin.datasets.camvid import CamVidDataset

    __all__ += ['CamVidDataset']
