"""Facts of the batch by name."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders import BatchRecorder


class Model(nn.Module):
    def forward(self, images, samples=None):
        return images


def recorded(samples, images=None):
    """A recorder that has seen a batch."""
    recorder = BatchRecorder()
    model = Model()
    recorder.initialize(model)
    with recorder:
        model(torch.zeros(max(len(samples), 1), 3, 4, 4) if images is None else images, samples)
    return recorder


def sample(boxes, shape=(40, 60), **fields):
    item = DetDataSample(metainfo=dict(img_shape=shape))
    item.gt_instances = InstanceData(bboxes=boxes, **fields)
    return item


def test_images_are_padded_to_the_most_boxes():
    one = sample(torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([5]))
    two = sample(torch.tensor([[0.0, 0, 9, 9], [2, 2, 4, 4]]), shape=(20, 30), labels=torch.tensor([1, 0]))
    batch = recorded([one, two])
    assert batch.get_record_data(data_idx='boxes').tolist() == [
        [[1, 2, 3, 4], [0, 0, 0, 0]],
        [[0, 0, 9, 9], [2, 2, 4, 4]],
    ]
    assert batch.get_record_data(data_idx='valid').tolist() == [[True, False], [True, True]]
    assert batch.get_record_data(data_idx='labels').tolist() == [[5, -1], [1, 0]]
    assert batch.get_record_data(data_idx='image_shapes').tolist() == [[40, 60], [20, 30]]


def test_batch_without_boxes():
    batch = recorded(
        [sample(torch.zeros(0, 4), labels=torch.zeros(0)), sample(torch.zeros(0, 4), labels=torch.zeros(0))]
    )
    shapes = [tuple(batch.get_record_data(data_idx=fact).shape) for fact in ('boxes', 'valid', 'labels')]
    assert shapes == [(2, 0, 4), (2, 0), (2, 0)]


def test_box_type_of_mmdet():
    batch = recorded([sample(HorizontalBoxes(torch.tensor([[1.0, 2, 3, 4]])))])
    assert batch.get_record_data(data_idx='boxes').tolist() == [[[1, 2, 3, 4]]]


def test_label_map_and_image():
    item = DetDataSample()
    item.gt_sem_seg = PixelData(data=torch.full((1, 2, 3), 7))
    images = torch.rand(1, 3, 2, 3)
    batch = recorded([item], images)
    assert batch.get_record_data(data_idx='label').tolist() == [[[7, 7, 7], [7, 7, 7]]]
    assert batch.get_record_data(data_idx='image') is images


def test_what_no_loss_reads_is_not_built():
    batch = recorded([sample(torch.zeros(1, 4))])
    boxes = batch.get_record_data(data_idx='boxes')
    assert batch.get_record_data(data_idx='boxes') is boxes
    assert list(batch.get_record_data()) == ['boxes']
    batch.reset_data_buffer()
    assert batch.get_record_data() == {}


@pytest.mark.parametrize(
    ('samples', 'fact', 'message'),
    [
        ([sample(torch.zeros(1, 5))], 'boxes', 'horizontal boxes with 4 numbers, but the data set gives 5'),
        ([DetDataSample(metainfo=dict(img_shape=(4, 4)))], 'boxes', 'with_bbox=True'),
        ([sample(torch.zeros(1, 4))], 'labels', 'with_label=True'),
        ([sample(torch.zeros(1, 4))], 'label', 'gt_sem_seg; add LoadAnnotations'),
        ([], 'boxes', 'with_bbox=True'),
        ([sample(torch.zeros(1, 4))], 'boxs', 'did you mean "boxes"'),
    ],
)
def test_what_the_batch_does_not_hold_is_refused(samples, fact, message):
    with pytest.raises(DistillError, match=message):
        recorded(samples).get_record_data(data_idx=fact)
