"""What a model predicts is seen from its parts."""

from __future__ import annotations

import pytest
from _helpers import tiny, tiny_seg
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.probe.models import probe


def parts(**modules: nn.Module) -> nn.Module:
    model = nn.Module()
    for name, module in modules.items():
        model.add_module(name, module)
    return model


@pytest.mark.parametrize(
    ('model', 'task'),
    [
        (parts(decode_head=nn.Identity()), 'segmentation'),
        (parts(decode_head=nn.ModuleList([nn.Identity()])), 'segmentation'),
        (parts(bbox_head=nn.Identity()), 'detection'),
        (parts(rpn_head=nn.Identity()), 'detection'),
        (parts(roi_head=nn.Identity()), 'detection'),
        (parts(mask_head=nn.Identity()), 'detection'),
        (parts(head=nn.Identity()), ''),
    ],
)
def test_task_of_made_up_models(model: nn.Module, task: str) -> None:
    assert task_of(model) == task


def test_detector_without_a_head_of_a_known_name() -> None:
    from mmdet.models.detectors.base import BaseDetector

    other = type('Other', (BaseDetector,), dict.fromkeys(BaseDetector.__abstractmethods__))
    assert task_of(other()) == 'detection'


@pytest.mark.parametrize(('config', 'task'), [(tiny.retinanet(), 'detection'), (tiny_seg.pspnet(), 'segmentation')])
def test_probe_tells_the_task(config: dict, task: str) -> None:
    assert probe(MODELS.build(config), 'student').task == task
