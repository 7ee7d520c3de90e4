"""Batches survive a file that holds data alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmkd_plugin.compat.allow_list import mmengine_globals
from mmkd_plugin.compat.safe_pickle import load_safely, torch_globals
from mmkd_plugin.utilities.plain import elements_of, from_plain, to_plain


def through_a_file(item: Any, folder: Path) -> Any:
    """Written, read safely and built again."""
    torch.save(to_plain(item), folder / 'item.pth')
    return from_plain(
        load_safely(torch.load, str(folder / 'item.pth'), {**torch_globals(), **mmengine_globals()}, 'cpu')
    )


def test_detector_batch(tmp_path):
    sample = DetDataSample(
        metainfo=dict(
            img_path='a.png', img_shape=(4, 6), scale_factor=np.array([1.5, 1.5]), homography_matrix=np.eye(3)
        )
    )
    masks = BitmapMasks(np.ones((2, 4, 6), np.uint8), 4, 6)
    boxes = HorizontalBoxes(torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]]))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 0]), masks=masks)
    polygons = PolygonMasks([[np.array([0.0, 0, 1, 0, 1, 1])]], 4, 6)
    sample.ignored_instances = InstanceData(bboxes=torch.ones(1, 4), masks=polygons)
    sample.gt_sem_seg = PixelData(sem_seg=torch.ones(1, 4, 6, dtype=torch.long))
    batch = dict(inputs=[torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)], data_samples=[sample])

    again = through_a_file(batch, tmp_path)
    assert torch.equal(again['inputs'][0], batch['inputs'][0])
    (read,) = again['data_samples']
    assert type(read) is DetDataSample and read.img_path == 'a.png' and read.img_shape == (4, 6)
    assert np.array_equal(read.homography_matrix, np.eye(3))
    assert type(read.gt_instances.bboxes) is HorizontalBoxes
    assert torch.equal(read.gt_instances.bboxes.tensor, boxes.tensor)
    assert np.array_equal(read.gt_instances.masks.masks, masks.masks)
    assert np.array_equal(read.ignored_instances.masks.masks[0][0], polygons.masks[0][0])
    assert torch.equal(read.gt_sem_seg.sem_seg, sample.gt_sem_seg.sem_seg)
    assert set(read.keys()) == set(sample.keys())


def test_segmentor_batch(tmp_path):
    sample = SegDataSample(metainfo=dict(img_path='b.png'))
    sample.gt_sem_seg = PixelData(data=torch.full((1, 2, 2), 255))
    again = through_a_file([sample], tmp_path)
    assert type(again[0]) is SegDataSample and torch.equal(again[0].gt_sem_seg.data, sample.gt_sem_seg.data)


def test_config(tmp_path):
    config = ConfigDict(type=nn.ReLU, scale=(1333, 800), rate=1e-3, nothing=None, steps=[8, 11], mean=np.float64(0.5))
    again = through_a_file(config, tmp_path)
    assert type(again) is dict and again['scale'] == (1333, 800) and again['steps'] == [8, 11]
    assert again['type'] == 'torch.nn.modules.activation.ReLU' and again['mean'] == 0.5


def test_subclass_and_other_objects_are_refused_by_name():
    class Own(DetDataSample):
        pass

    for item in (Own(), np.array([object()]), object()):
        with pytest.raises(TypeError, match=r'Own|numpy\.ndarray|builtins\.object'):
            to_plain([item])


def test_only_listed_structures_are_built():
    with pytest.raises(TypeError, match='os.system'):
        from_plain({'__structure__': 'os.system', 'meta': {}, 'fields': {}})


def test_images_of_a_nested_batch():
    samples = [DetDataSample(metainfo=dict(img_id=index)) for index in range(3)]
    batch = dict(inputs={}, data_samples=dict(sup=samples[:1], unsup=[samples[1:], []]))
    assert [item.img_id for item in elements_of(batch)] == [0, 1, 2]
