"""Generated images bring what a config's pipeline would bring."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.study.one_step import GeneratedImages, needs
from mmkd_plugin.teachers import local_file


def zoo(name: str, package: str = 'mmdet') -> Config:
    return Config.fromfile(local_file(f'{package}::{name}'))


def test_annotations_follow_the_pipeline():
    boxes = needs(zoo('retinanet/retinanet_r50_fpn_1x_coco.py'), 'mmdet', 64)
    assert (boxes['classes'], boxes['masks'], boxes['semantic'], boxes['frames']) == (80, False, None, 0)
    stuff = needs(zoo('htc/htc_r50_fpn_1x_coco.py'), 'mmdet', 64)
    assert (stuff['masks'], stuff['semantic'][0]) == (True, 0)
    panoptic = needs(zoo('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'), 'mmdet', 64)
    assert (panoptic['masks'], panoptic['semantic']) == (True, (80, 133))
    assert needs(zoo('qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py'), 'mmdet', 64)['frames'] == 2
    images = zoo('ocsort/ocsort_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval.py')
    assert needs(images, 'mmdet', 64)['frames'] == 0
    maps = needs(zoo('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'mmseg'), 'mmseg', 64)
    assert maps['classes'] == 19


def test_objects_lie_inside_their_images():
    data = GeneratedImages('mmdet', 64, 5, masks=True, semantic=(5, 8))
    for index, shape in enumerate([(64, 64), (56, 48)]):
        sample = data[index]['data_samples']
        boxes, masks = sample.gt_instances.bboxes, sample.gt_instances.masks.masks
        assert data[index]['inputs'].shape == (3, *shape) == (3, *sample.img_shape)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes[:, 2] <= shape[1]).all() and (boxes[:, 3] <= shape[0]).all()
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        assert np.allclose(masks.sum((1, 2)), area, rtol=0.4) and sample.gt_instances.labels.max() < 5
        labels = sample.gt_sem_seg.sem_seg
        assert labels.shape == (1, *shape) and 5 <= labels.min() <= labels.max() < 8


def test_images_have_one_size_where_the_config_makes_them_so():
    assert needs(zoo('yolact/yolact_r50_1xb8-55e_coco.py'), 'mmdet', 64)['one_size']
    assert not needs(zoo('retinanet/retinanet_r50_fpn_1x_coco.py'), 'mmdet', 64)['one_size']
    data = GeneratedImages('mmdet', 64, 5, one_size=True)
    assert data[0]['inputs'].shape == data[1]['inputs'].shape == (3, 64, 64)


def test_classes_are_named_for_detectors_that_read():
    asked = needs(zoo('grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py'), 'mmdet', 64)
    assert asked['text'] and asked['classes'] == 80
    sample = GeneratedImages('mmdet', 64, 5, text=True)[0]['data_samples']
    assert len(sample.text) == 5 and sample.custom_entities
    assert 'text' not in GeneratedImages('mmdet', 64, 5)[0]['data_samples']


def test_clips_and_label_maps():
    clip = GeneratedImages('mmdet', 64, 2, frames=2)[0]
    assert clip['inputs'].shape == (2, 3, 64, 64) and len(clip['data_samples'].video_data_samples) == 2
    labels = GeneratedImages('mmseg', 32, 4)[0]['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, 32, 32) and labels.max() < 4
