"""The floor runs the teacher as far as ours does, and does nothing else beside the student's step."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny, tiny_seg
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.study.benchmark.floor import FloorAlgorithm

CHEN = dict(type='Chen')
PAIRS: dict[str, tuple[Any, dict, str, str]] = {
    # Family, changes of the run, a module that runs, and one that does not.
    'levels before their norm': (tiny, dict(distill=tiny.block()), 'neck.fpn_convs.2.conv', 'bbox_head.retina_cls'),
    'dense head': (
        tiny,
        dict(distill=tiny.block(methods=dict(chen=CHEN))),
        'bbox_head.retina_reg',
        'backbone.fc',
    ),
    'RoI head': (
        tiny,
        dict(
            model=tiny.faster_rcnn(),
            distill=tiny.block(teacher=tiny.faster_rcnn(width=24), methods=dict(chen=CHEN)),
        ),
        'roi_head.bbox_head.fc_cls',
        'backbone.fc',
    ),
    'backbone': (
        tiny,
        dict(
            distill=tiny.block(
                methods=dict(l2=dict(type='Feature', tap='backbone.layer2', loss=dict(type='mmrazor.L2Loss')))
            )
        ),
        'backbone.layer2.1.conv2',
        'backbone.layer3.0.conv1',
    ),
    'auxiliary head': (
        tiny_seg,
        dict(distill=tiny_seg.block(dict(type='PSPNetKD'))),
        'auxiliary_head.conv_seg',
        'backbone.fc',
    ),
    'main logits': (
        tiny_seg,
        dict(distill=tiny_seg.block(dict(type='PixelWise'))),
        'decode_head.conv_seg',
        'auxiliary_head.conv_seg',
    ),
}


def counted(teacher: nn.Module) -> collections.Counter:
    """How often each module without children runs from now on."""
    calls: collections.Counter = collections.Counter()
    for name, module in teacher.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    return calls


def pair(name: str, folder: Path) -> tuple[Any, FloorAlgorithm, dict]:
    """Ours, its floor and a batch."""
    family, changes, *_ = PAIRS[name]
    cfg = expand_config(family.run_config(folder, **changes))
    init_default_scope(cfg.default_scope)
    for options in cfg.model.teachers.values():
        options.teacher_options = dict(fuse_bn=False, channels_last=False)
    torch.manual_seed(0)
    ours = MODELS.build(cfg.model)
    floor = FloorAlgorithm(MODELS.build(cfg.model.architecture), cfg.model)
    floor.architecture.load_state_dict(ours.student.state_dict())
    for algorithm in (ours, floor):
        algorithm.train()
    return ours, floor, family.batch(ours.student)


def teacher_of(floor: FloorAlgorithm) -> Any:
    return next(iter(floor.teachers.values()))


@pytest.mark.parametrize('name', PAIRS)
def test_the_teacher_runs_to_the_last_module_that_is_read(name: str, tmp_path: Path) -> None:
    ours, floor, data = pair(name, tmp_path)
    *_, last, behind = PAIRS[name]
    # The first step looks at the teacher's options.
    ours(**data, mode='loss')
    with_losses, without = counted(ours.teacher.model), counted(teacher_of(floor).model)
    for algorithm in (ours, floor):
        torch.manual_seed(0)
        algorithm(**data, mode='loss')
    assert without == with_losses
    assert without[last] and not without[behind]


def test_it_trains_the_student_alone(tmp_path: Path) -> None:
    _, floor, data = pair('RoI head', tmp_path)
    torch.manual_seed(0)
    losses = floor(**data, mode='loss')
    torch.manual_seed(0)
    alone = floor.architecture(**data, mode='loss')
    assert losses.keys() == alone.keys()
    total, _ = floor.parse_losses(losses)
    assert torch.allclose(total, floor.architecture.parse_losses(alone)[0])
    total.backward()
    teacher = teacher_of(floor)
    assert all(item.grad is None for item in teacher.parameters()) and not teacher.model.training
    assert any(item.grad is not None for item in floor.architecture.parameters())


def test_nothing_is_kept_from_one_step_to_the_next(tmp_path: Path) -> None:
    _, floor, data = pair('RoI head', tmp_path)
    teacher = teacher_of(floor)
    for _ in range(2):
        floor(**data, mode='loss')
        assert not any(recorder.data_buffer for recorder, _ in teacher._recorders)
        assert not any(recorder.data_buffer for recorder in floor._followed)


@pytest.mark.parametrize(('name', 'first'), [('levels before their norm', 'teacher'), ('RoI head', 'student')])
def test_the_teacher_comes_first_where_it_needs_nothing_of_the_student(name: str, first: str, tmp_path: Path) -> None:
    _, floor, data = pair(name, tmp_path)
    order: list[str] = []
    teacher = teacher_of(floor)
    teacher.model.backbone.register_forward_pre_hook(lambda *_: order.append('teacher'))
    floor.architecture.backbone.register_forward_pre_hook(lambda *_: order.append('student'))
    floor(**data, mode='loss')
    assert order[0] == first and len(order) == 2


def test_a_teacher_of_another_normalisation_gets_its_own(tmp_path: Path) -> None:
    other = dict(tiny.retinanet(width=24), data_preprocessor=tiny.retinanet(mean=[0.0, 0.0, 0.0])['data_preprocessor'])
    cfg = expand_config(tiny.run_config(tmp_path, distill=tiny.block(teacher=other)))
    init_default_scope('mmdet')
    floor = FloorAlgorithm(MODELS.build(cfg.model.architecture), cfg.model)
    teacher = teacher_of(floor)
    seen = []
    teacher.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    data = tiny.batch(floor.architecture)
    floor(**data, mode='loss')
    assert not torch.allclose(seen[0], data['inputs'])
