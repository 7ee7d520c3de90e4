"""MMDetection must read, load and evaluate COCO-mini."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from mmkd_plugin.datasets import COCO_MINI_CLASSES, COCO_MINI_PALETTE
from mmkd_plugin.registry import DATASETS

pytest.importorskip('mmdet')

PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
    {'type': 'PackDetInputs', 'meta_keys': ('img_id', 'img_path', 'ori_shape', 'img_shape')},
]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def build(root, split='val', **changes):
    config = {
        'type': 'mmkd_plugin.CocoMiniDataset',
        'data_root': str(root),
        'ann_file': f'annotations/instances_{split}.json',
        'data_prefix': {'img': f'{split}/'},
        'pipeline': PIPELINE,
        **changes,
    }
    return DATASETS.build(config)


def test_registered_dataset_knows_its_classes(small_set, capsys):
    dataset = build(small_set)
    assert dataset.metainfo['classes'] == COCO_MINI_CLASSES
    assert len(dataset.metainfo['palette']) == len(COCO_MINI_PALETTE) == len(COCO_MINI_CLASSES)
    assert len(dataset) == 6


def test_stock_dataset_reads_the_same(small_set, capsys):
    ours = build(small_set)
    stock = build(small_set, type='mmdet.CocoDataset', metainfo={'classes': COCO_MINI_CLASSES})
    assert [stock.get_data_info(i) for i in range(6)] == [ours.get_data_info(i) for i in range(6)]


def test_labels_are_the_category_ids_less_one(full_set, capsys):
    content = json.loads((full_set / 'annotations' / 'instances_val.json').read_bytes())
    dataset = build(full_set)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        entries = [entry for entry in content['annotations'] if entry['image_id'] == info['img_id']]
        assert [one['bbox_label'] + 1 for one in info['instances']] == [entry['category_id'] for entry in entries]
        assert [one['ignore_flag'] for one in info['instances']] == [entry['iscrowd'] for entry in entries]


def test_empty_images_can_be_left_out_of_training(full_set, capsys):
    content = json.loads((full_set / 'annotations' / 'instances_train.json').read_bytes())
    filled = {entry['image_id'] for entry in content['annotations']}
    dataset = build(full_set, split='train', filter_cfg={'filter_empty_gt': True, 'min_size': 32})
    assert {dataset.get_data_info(index)['img_id'] for index in range(len(dataset))} == filled


def test_pipeline_loads_pixels_boxes_and_masks(full_set, capsys):
    dataset = build(full_set)
    loaded = 0
    for index in range(20):
        packed = dataset[index]
        assert packed['inputs'].shape == (3, 128, 128)
        instances = packed['data_samples'].gt_instances
        for box, mask in zip(instances.bboxes.tensor, instances.masks.masks):
            rows, columns = np.nonzero(mask)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == extent
            loaded += 1
    assert loaded > 20


def test_coco_metric_gives_the_ground_truth_full_marks(full_set, capsys):
    from mmdet.evaluation import CocoMetric

    dataset = build(full_set)
    metric = CocoMetric(ann_file=str(full_set / 'annotations' / 'instances_val.json'), metric='bbox')
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        truth = sample.gt_instances
        prediction = {
            'bboxes': truth.bboxes.tensor,
            'scores': torch.ones(len(truth)),
            'labels': truth.labels,
        }
        metric.process({}, [{'img_id': sample.img_id, 'ori_shape': sample.ori_shape, 'pred_instances': prediction}])
    result = metric.evaluate(size=len(dataset))
    assert result['coco/bbox_mAP'] == pytest.approx(1.0)
    assert result['coco/bbox_mAP_s'] == pytest.approx(1.0)
    assert result['coco/bbox_mAP_m'] == pytest.approx(1.0)
