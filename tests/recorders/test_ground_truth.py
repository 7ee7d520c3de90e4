"""The batch's boxes as padded tensors."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders.ground_truth import collate_ground_truth

CPU = torch.device('cpu')


def sample(boxes, shape=(40, 60), **fields):
    item = DetDataSample(metainfo=dict(img_shape=shape))
    item.gt_instances = InstanceData(bboxes=boxes, **fields)
    return item


def test_images_are_padded_to_the_most_boxes():
    one = sample(torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([5]))
    two = sample(torch.tensor([[0.0, 0, 9, 9], [2, 2, 4, 4]]), shape=(20, 30), labels=torch.tensor([1, 0]))
    truth = collate_ground_truth([one, two], CPU)
    assert truth.boxes.tolist() == [[[1, 2, 3, 4], [0, 0, 0, 0]], [[0, 0, 9, 9], [2, 2, 4, 4]]]
    assert truth.valid.tolist() == [[True, False], [True, True]]
    assert truth.labels.tolist() == [[5, -1], [1, 0]]
    assert truth.image_shapes.tolist() == [[40, 60], [20, 30]]


def test_batch_without_boxes():
    truth = collate_ground_truth([sample(torch.zeros(0, 4)), sample(torch.zeros(0, 4))], CPU)
    assert truth.boxes.shape == (2, 0, 4) and truth.valid.shape == (2, 0)


def test_box_type_of_mmdet():
    truth = collate_ground_truth([sample(HorizontalBoxes(torch.tensor([[1.0, 2, 3, 4]])))], CPU)
    assert truth.boxes.tolist() == [[[1, 2, 3, 4]]]


def test_rotated_boxes_are_refused():
    with pytest.raises(DistillError, match='horizontal boxes with 4 numbers, but the data set gives 5'):
        collate_ground_truth([sample(torch.zeros(1, 5))], CPU)


def test_data_without_boxes_is_refused():
    with pytest.raises(DistillError, match='with_bbox=True'):
        collate_ground_truth([DetDataSample(metainfo=dict(img_shape=(4, 4)))], CPU)
