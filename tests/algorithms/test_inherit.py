"""The inheriting strategy copies neck and heads, or refuses."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import block, build, retinanet, run_config
from mmengine.registry import MODELS

from mmkd_plugin.algorithms.inherit import inherit_weights
from mmkd_plugin.errors import DistillError


def test_everything_but_the_backbone_is_copied():
    teacher, student = MODELS.build(retinanet()), MODELS.build(retinanet())
    report = inherit_weights(student, teacher)
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith('backbone.'))
    assert not torch.equal(ours['backbone.conv1.weight'], theirs['backbone.conv1.weight'])
    assert 'neck' in report and 'bbox_head' in report


def test_other_widths_are_refused_or_left():
    teacher, student = MODELS.build(retinanet(width=24)), MODELS.build(retinanet())
    before = student.bbox_head.retina_cls.weight.clone()
    with pytest.raises(DistillError, match='inherit=True needs equal necks and heads'):
        inherit_weights(student, teacher)
    assert 'nothing copied' in inherit_weights(student, teacher, 'auto')
    assert torch.equal(student.bbox_head.retina_cls.weight, before)


def test_what_matches_is_copied_and_the_rest_named():
    teacher, student = MODELS.build(retinanet()), MODELS.build(retinanet())
    student.bbox_head.retina_cls = torch.nn.Conv2d(16, 5, 3)
    student.bbox_head.extra = torch.nn.Linear(2, 2)
    before = student.bbox_head.retina_cls.weight.clone()
    report = inherit_weights(student, teacher, 'matching')
    assert torch.equal(student.bbox_head.retina_reg.weight, teacher.bbox_head.retina_reg.weight)
    assert torch.equal(student.neck.fpn_convs[0].conv.weight, teacher.neck.fpn_convs[0].conv.weight)
    assert torch.equal(student.bbox_head.retina_cls.weight, before)
    assert "4 are the student's own: bbox_head (4), bbox_head.retina_cls.weight, bbox_head.retina_cls.bias" in report


def test_nothing_in_common_is_refused():
    teacher, student = MODELS.build(retinanet()), torch.nn.Module()
    student.backbone, student.neck = torch.nn.Identity(), torch.nn.Linear(1, 1)
    with pytest.raises(DistillError, match="inherit='matching' needs something in common, but the teacher has no"):
        inherit_weights(student, teacher, 'matching')


def test_it_survives_the_weight_initialisation(tmp_path):
    runner = build(
        run_config(
            tmp_path,
            iterations=1,
            distill=block(teacher=retinanet(), inherit=True),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        )
    )
    runner.train()
    model = runner.model
    assert torch.equal(model.student.bbox_head.retina_cls.weight, model.teacher.model.bbox_head.retina_cls.weight)
    assert not torch.equal(model.student.backbone.conv1.weight, model.teacher.model.backbone.conv1.weight)
