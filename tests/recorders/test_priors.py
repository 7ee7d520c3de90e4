"""The anchors of the head, for the feature sizes of the step."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import faster_rcnn, retinanet
from mmdet.models.task_modules import AnchorGenerator, MlvlPointGenerator
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders import PriorsRecorder


class Pyramid(nn.Module):
    """A stand-in neck: average-pools its input by 1 and by 2."""

    def forward(self, x):
        return x, nn.functional.avg_pool2d(x, 2)


class Detector(nn.Module):
    """A neck and a head that holds a prior generator."""

    def __init__(self, generator) -> None:
        super().__init__()
        self.neck = Pyramid()
        self.bbox_head = nn.Identity()
        self.bbox_head.prior_generator = generator

    def forward(self, x):
        return self.bbox_head(self.neck(x))


def detector() -> Detector:
    """One square anchor of the stride's size around each cell's corner."""
    return Detector(AnchorGenerator(strides=[8, 16], ratios=[1.0], scales=[1.0]))


def record(model: nn.Module, *sizes: tuple[int, int], device: str = 'cpu', **options) -> PriorsRecorder:
    recorder = PriorsRecorder('neck', **options)
    recorder.initialize(model)
    recorder.__enter__()
    for size in sizes:
        model(torch.zeros(1, 3, *size, device=device))
    recorder.__exit__(None, None, None)
    return recorder


def test_anchors_lie_on_the_cells_of_each_level():
    recorder = record(detector(), (2, 4))
    assert recorder.get_record_data(data_idx=0)[:5].tolist() == [
        [-4, -4, 4, 4],
        [4, -4, 12, 4],
        [12, -4, 20, 4],
        [20, -4, 28, 4],
        [-4, 4, 4, 12],
    ]
    assert recorder.get_record_data(data_idx=1).tolist() == [[-8, -8, 8, 8], [8, -8, 24, 8]]


def test_feature_maps_name_their_level_of_the_generator():
    recorder = record(detector(), (2, 2), levels=[None, 0])
    assert recorder.get_record_data()[0] is None
    assert recorder.get_record_data(data_idx=1).tolist() == [[-4, -4, 4, 4]]


def test_anchors_are_computed_once_per_size():
    recorder = record(detector(), (2, 4), (4, 4), (2, 4))
    first, other, again = (recorder.get_record_data(index, 0) for index in range(3))
    assert first is again
    assert (len(first), len(other)) == (8, 16)


def test_sizes_kept_are_bounded(monkeypatch):
    monkeypatch.setattr('mmkd_plugin.recorders.priors.CACHED_SIZES', 2)
    recorder = record(detector(), (2, 2), (2, 4), (4, 4), (2, 2))
    assert recorder.get_record_data(3, 0) is not recorder.get_record_data(0, 0)
    assert torch.equal(recorder.get_record_data(3, 0), recorder.get_record_data(0, 0))


@pytest.mark.parametrize(('config', 'head'), [(retinanet(), 'bbox_head'), (faster_rcnn(), 'rpn_head')])
def test_anchors_are_those_of_the_head_itself(config, head):
    model = MODELS.build(ConfigDict(config)).eval()
    recorder = PriorsRecorder('neck')
    recorder.initialize(model)
    with torch.no_grad():
        recorder.__enter__()
        features = model.extract_feat(torch.zeros(1, 3, 64, 96))
    sizes = [feature.shape[-2:] for feature in features]
    expected, _ = getattr(model, head).get_anchors(sizes, [dict(pad_shape=(64, 96))], device='cpu')
    for ours, theirs in zip(recorder.get_record_data(), expected[0]):
        assert torch.equal(ours, theirs)


def test_nothing_waits_for_the_device():
    """Tensors on this device have no values, so that reading one fails."""
    recorder = record(detector(), (2, 4), device='meta')
    assert [priors.shape for priors in recorder.get_record_data()] == [(8, 4), (2, 4)]
    assert all(priors.is_meta for priors in recorder.get_record_data())


@pytest.mark.parametrize('generator', [MlvlPointGenerator([8, 16]), None])
def test_heads_without_anchors_are_refused(generator):
    with pytest.raises(DistillError, match='its head has no fixed anchors'):
        record(Detector(generator))


def test_too_few_feature_maps_are_refused():
    model = Detector(AnchorGenerator(strides=[8, 16, 32], ratios=[1.0], scales=[1.0]))
    with pytest.raises(DistillError, match='returns 2 feature maps, but anchors lie on 3'):
        record(model, (2, 2))
