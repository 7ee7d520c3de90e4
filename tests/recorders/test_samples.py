"""What the student's heads were trained on, and what the teacher's heads say about it."""

from __future__ import annotations

import copy

import pytest
import torch
from _helpers.tiny import batch, faster_rcnn, retinanet
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.compat.razor import RecorderManager
from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders import AnchorPredictionsRecorder, AnchorSamplesRecorder, RoISamplesRecorder
from mmkd_plugin.recorders.samples import anchors_first, boxes_of_labels


def detector(config: dict) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(config)).train()


def record(model: nn.Module, *recorders, mode: str = 'loss'):
    for recorder in recorders:
        recorder.initialize(model)
        recorder.__enter__()
    result = model(**batch(model), mode=mode)
    for recorder in recorders:
        recorder.__exit__(None, None, None)
    return result


def test_anchors_lie_in_the_order_of_cells():
    # Two images, two anchors a cell, three numbers an anchor, 1 x 2 cells; each value spells where it belongs.
    maps = torch.zeros(2, 6, 1, 2)
    for image in range(2):
        for anchor in range(2):
            for column in range(3):
                for x in range(2):
                    maps[image, 3 * anchor + column, 0, x] = 1000 * image + 100 * x + 10 * anchor + column
    expected = [
        [1000 * image + 100 * x + 10 * anchor + column for column in range(3)]
        for image in range(2)
        for x in range(2)
        for anchor in range(2)
    ]
    assert anchors_first(maps, 3).tolist() == expected


def test_box_of_the_label():
    boxes = torch.arange(24.0).reshape(2, 12)
    assert boxes_of_labels(boxes, torch.tensor([2, 0])).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    # The background has no box; any will do, as no loss counts it.
    assert boxes_of_labels(boxes, torch.tensor([3, 1]))[1].tolist() == [16, 17, 18, 19]
    assert boxes_of_labels(boxes[:, :4], torch.tensor([2, 0])).tolist() == boxes[:, :4].tolist()
    assert boxes_of_labels(torch.zeros(0, 12), torch.zeros(0).long()).shape == (0, 4)


@pytest.mark.parametrize(
    ('config', 'recorders'),
    [
        (retinanet(), [AnchorSamplesRecorder('bbox_head')]),
        (faster_rcnn(), [AnchorSamplesRecorder('rpn_head'), RoISamplesRecorder('roi_head.bbox_head')]),
    ],
)
def test_losses_are_the_same_with_and_without(config, recorders):
    model = detector(config)
    plain = copy.deepcopy(model)
    torch.manual_seed(1)
    expected = plain(**batch(plain), mode='loss')
    torch.manual_seed(1)
    actual = record(model, *recorders)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert all(recorder.data_buffer for recorder in recorders)
    assert not any({'loss', 'loss_by_feat_single'} & set(vars(module)) for module in model.modules())


def test_one_record_per_level():
    recorder = AnchorSamplesRecorder('rpn_head')
    record(detector(faster_rcnn()), recorder)
    # 64 x 64 pixels, three images, two anchors a cell, strides 4 to 64.
    cells = [16 * 16, 8 * 8, 4 * 4, 2 * 2, 1]
    assert [recorder.get_record_data(level, 'logits').shape for level in range(5)] == [
        (6 * number, 1) for number in cells
    ]
    assert recorder.get_record_data(1, 'targets').shape == (6 * 64, 4)
    factors = [recorder.get_record_data(level, 'avg_factor') for level in range(5)]
    assert len(set(map(float, factors))) == 1
    # 16 anchors are sampled in each image; the one without objects counts its missing positive as one.
    assert sum(recorder.get_record_data(level, 'label_weights').sum() for level in range(5)) == 48
    assert factors[0] == 49
    for level in range(5):
        assert recorder.get_record_data(level, 'images') == 3
        assert recorder.get_record_data(level, 'sampled') == 48


def test_counts_are_the_mean_over_ranks(monkeypatch):
    """Exchanged once, together, and anew in each step."""
    calls = []

    def all_reduce(value, op):
        calls.append(op)
        # The other rank has an image more and three times the rest.
        value.copy_((value + torch.stack([3 * value[0], value[1] + 1, 3 * value[2]])) / 2)

    recorder = AnchorSamplesRecorder('bbox_head')
    model = detector(retinanet())
    record(model, recorder)
    own = {field: recorder.get_record_data(0, field) for field in ('avg_factor', 'images', 'sampled')}
    recorder.reset_data_buffer()
    monkeypatch.setattr('mmkd_plugin.utilities.distributed.all_reduce', all_reduce)
    record(model, recorder)
    for level in range(3):
        assert recorder.get_record_data(level, 'avg_factor') == 2 * own['avg_factor']
        assert recorder.get_record_data(level, 'images') == 3.5
        assert recorder.get_record_data(level, 'sampled') == 2 * own['sampled']
    assert calls == ['mean']


def test_a_field_is_the_same_object_within_a_step():
    recorder = AnchorSamplesRecorder('bbox_head')
    record(detector(retinanet()), recorder)
    assert recorder.get_record_data(0, 'logits') is recorder.get_record_data(0, 'logits')
    assert recorder.get_record_data(0, 'logits').requires_grad
    assert {name: value.shape[1] for name, value in recorder.get_record_data(0).items()} == {'logits': 2}
    recorder.reset_data_buffer()
    with pytest.raises(DistillError, match='computed 0 losses in this step'):
        recorder.get_record_data(0, 'logits')


def test_the_head_is_unwatched_after_an_error():
    model, recorder = detector(retinanet()), AnchorSamplesRecorder('bbox_head')
    recorder.initialize(model)
    with pytest.raises(RuntimeError), recorder:
        model.bbox_head.loss_by_feat_single(*[torch.zeros(1, 2, 3, 3)] * 7, avg_factor=1)
    assert 'loss_by_feat_single' not in vars(model.bbox_head)


def test_two_recorders_of_one_head():
    model = detector(retinanet())
    recorders = [AnchorSamplesRecorder('bbox_head'), AnchorSamplesRecorder('bbox_head')]
    record(model, *recorders)
    assert [len(recorder.data_buffer) for recorder in recorders] == [3, 3]
    assert 'loss_by_feat_single' not in vars(model.bbox_head)


def test_missing_head_is_named():
    with pytest.raises(DistillError, match=r'"rpn_head" is not a module of RetinaNet'):
        AnchorSamplesRecorder('rpn_head').initialize(detector(retinanet()))


def test_predictions_need_no_call_of_the_head_by_the_model():
    """A one-stage detector's plain forward pass calls its head past all hooks."""
    model = detector(retinanet())
    recorder = AnchorPredictionsRecorder('neck', 'bbox_head')
    scores, boxes = record(model, recorder, mode='tensor')
    for level in range(3):
        assert torch.equal(recorder.get_record_data(level, 'logits'), anchors_first(scores[level], 2))
        assert torch.equal(recorder.get_record_data(level, 'boxes'), anchors_first(boxes[level], 4))
    assert not recorder.get_record_data(0, 'logits').requires_grad


def test_they_are_registered():
    kinds = ('AnchorSamples', 'RoISamples', 'AnchorPredictions', 'RoIPredictions')
    manager = RecorderManager({kind: dict(type=f'mmkd_plugin.{kind}', source='neck') for kind in kinds})
    assert list(manager.recorders) == list(kinds)


@pytest.mark.parametrize(('of_student', 'of_teacher'), [(3, 4), (4, 3), (4, 4)])
def test_maps_of_other_sizes_are_compared_at_the_same_anchors(of_student, of_teacher):
    """Two levels of one anchor a cell; each number of the teacher spells its row and column."""

    def spelt(cells):
        rows, columns = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing='ij')
        return (10.0 * rows + columns)[None, None]

    class Head(nn.Module):
        cls_out_channels = 1

        def forward(self, features):
            return [spelt(9), spelt(of_teacher)], [spelt(9).repeat(1, 4, 1, 1), spelt(of_teacher).repeat(1, 4, 1, 1)]

    class Trainee(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Module()
            self.head.loss_by_feat_single = lambda cls_score: None

    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.neck, self.head = nn.Identity(), Head()

    samples = dict(type='mmkd_plugin.AnchorSamples', source='head')
    students = RecorderManager(dict(samples=samples))
    trainee, teacher = Trainee(), Teacher()
    students.initialize(trainee)
    # The teacher's first level is one that the student does not have.
    recorder = AnchorPredictionsRecorder('neck', 'head', samples='samples', levels=[None, 0])
    recorder.initialize(teacher)
    recorder.follow(students)
    with students.get_recorder('samples'):
        trainee.head.loss_by_feat_single(torch.zeros(1, 1, of_student, of_student))
    with recorder:
        teacher.neck(torch.zeros(1, 1, 1, 1))
    common = min(of_student, of_teacher)
    expected = [
        [10.0 * min(row, common - 1) + min(column, common - 1)]
        for row in range(of_student)
        for column in range(of_student)
    ]
    assert recorder.get_record_data(1, 'logits').tolist() == expected
    assert recorder.get_record_data(1, 'boxes')[:, 2:3].tolist() == expected
    assert recorder.get_record_data(0, 'logits').shape == (81, 1)
