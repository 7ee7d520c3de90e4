"""MMSegmentation must read COCO-mini, and detection must not need it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmkd_plugin.datasets import COCO_MINI_CLASSES
from mmkd_plugin.registry import DATASETS

WITHOUT_MMSEG = """
import sys
sys.modules['mmseg'] = None
from mmkd_plugin.registry import DATASETS
assert DATASETS.get('mmkd_plugin.CocoMiniDataset') is not None
assert DATASETS.get('mmkd_plugin.CocoMiniSegDataset') is None
"""


def test_dataset_yields_images_with_their_maps(full_set):
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    dataset = DATASETS.build(
        {
            'type': 'mmkd_plugin.CocoMiniSegDataset',
            'data_root': str(full_set),
            'data_prefix': {'img_path': 'val', 'seg_map_path': 'semantic/val'},
            'pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}, {'type': 'PackSegInputs'}],
        }
    )
    assert len(dataset) == 400
    assert dataset.metainfo['classes'] == ('background', *COCO_MINI_CLASSES)
    assert len(dataset.metainfo['palette']) == len(COCO_MINI_CLASSES) + 1
    values: set[int] = set()
    for index in range(400):
        packed = dataset[index]
        assert packed['inputs'].shape == (3, 128, 128)
        values |= set(np.unique(packed['data_samples'].gt_sem_seg.data.numpy()).tolist())
    assert values == {*range(len(COCO_MINI_CLASSES) + 1), 255}


def test_detection_works_without_mmseg():
    process = subprocess.run([sys.executable, '-W', 'ignore', '-c', WITHOUT_MMSEG], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
