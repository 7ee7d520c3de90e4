"""Models are built from what a run has written down, and counted on an image of its size."""

from __future__ import annotations

from typing import Any

import pytest
from _helpers.tiny import block, retinanet, run_config
from mmdet.registry import MODELS

from mmkd_plugin.block import expand_config
from mmkd_plugin.study.made_up import SIDE
from mmkd_plugin.study.report import models
from mmkd_plugin.study.report.models import expanded_text, image_size, model_sizes

RESIZE = dict(type='Resize', scale=(1333, 800), keep_ratio=True)


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        (dict(model=dict(data_preprocessor=dict(size=(512, 1024)))), (512, 1024)),
        (dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), RESIZE]))), (800, 1333)),
        (dict(val_dataloader=dict(dataset=dict(dataset=dict(pipeline=[RESIZE])))), (800, 1333)),
        (dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='mmdet.Resize', scale=640)]))), (640, 640)),
        (dict(model=None, test_dataloader=None), (SIDE, SIDE)),
    ],
)
def test_size_of_the_image(config: dict[str, Any], size: tuple[int, int]) -> None:
    assert image_size(config) == size


def parameters(model: dict) -> int:
    return sum(parameter.numel() for parameter in MODELS.build(model).parameters())


def test_student_and_teacher() -> None:
    entries = run_config('unused', distill=block()).to_dict()
    sizes = {size.role: size for size in model_sizes(entries)}
    assert sizes['student'].parameters == parameters(retinanet())
    assert sizes['teacher'].parameters == parameters(retinanet(width=24))
    assert sizes['student'].size == (SIDE, SIDE)
    assert sizes['student'].flops


def test_operations_grow_with_the_image() -> None:
    entries = run_config('unused').to_dict()
    entries['test_dataloader'] = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(2 * SIDE, SIDE))]))
    (wide,), (square,) = model_sizes(entries), model_sizes(run_config('unused').to_dict())
    assert wide.flops and square.flops
    assert wide.flops == pytest.approx(2 * square.flops, rel=0.01)


def test_operations_on_a_large_image_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, 'PIXELS', SIDE * SIDE - 1)
    (size,) = model_sizes(run_config('unused').to_dict())
    assert size.parameters == parameters(retinanet())
    assert size.flops is None
    assert 'too large' in size.reason


def test_student_of_an_expanded_config() -> None:
    entries = expand_config(run_config('unused', distill=block())).to_dict()
    (size,) = model_sizes(entries)
    assert (size.role, size.kind, size.parameters) == ('student', 'RetinaNet', parameters(retinanet()))


def test_what_cannot_be_built_has_a_reason() -> None:
    entries = run_config('unused', distill=block(teacher='gone.py')).to_dict()
    student, teacher = model_sizes(entries)
    assert student.parameters
    assert teacher.parameters is None
    assert 'gone.py' in teacher.reason
    text, reason = expanded_text(entries)
    assert not text
    assert 'gone.py' in reason
