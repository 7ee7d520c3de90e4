"""Chen et al. 2017 in the distill block: what it refuses, and that the remedies it names work."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import faster_rcnn, retinanet
from _helpers.tiny_chen import OFF, Step, build, expand
from _helpers.tiny_families import atss, cascade, changed, fcos

from mmkd_plugin.errors import DistillError

RETINA, FASTER = retinanet(width=24), faster_rcnn(width=24)
CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ('student', 'teacher', 'message'),
    [
        (retinanet(), changed(RETINA, 'bbox_head.num_classes', 3), r'2 sigmoid columns and the teacher.s by 3 sigmoid'),
        (
            faster_rcnn(),
            changed(FASTER, 'roi_head.bbox_head.num_classes', 3),
            r'3 softmax columns and the teacher.s by 4 softmax',
        ),
        (
            faster_rcnn(),
            changed(FASTER, 'rpn_head.loss_cls', dict(type='CrossEntropyLoss')),
            r'rpn_head classifies by 1 sigmoid columns and the teacher.s by 2 softmax',
        ),
        (
            retinanet(),
            changed(RETINA, 'bbox_head.anchor_generator.ratios', [0.5, 1.0]),
            r'At stride 8 .* other anchors \(1 a cell, 16x16\) than that of the teacher \(2 a cell',
        ),
        (
            retinanet(),
            changed(RETINA, 'bbox_head.anchor_generator.octave_base_scale', 3),
            r'At stride 8 .* \(1 a cell, 16x16\) than that of the teacher \(1 a cell, 24x24\)',
        ),
        (retinanet(), changed(RETINA, 'bbox_head.bbox_coder', CODER), r'stds=\(0.1, 0.1, 0.2, 0.2\)\); .*=0'),
        (
            changed(retinanet(), 'bbox_head.reg_decoded_bbox', True),
            RETINA,
            r'decoded boxes \(reg_decoded_bbox=True\).*distill.methods.chen.regression_weight=0',
        ),
        (retinanet(), FASTER, r"student's bbox_head cannot be compared with the teacher's rpn_head"),
        (faster_rcnn(), RETINA, r'FasterRCNN, has a roi_head.bbox_head, which the teacher, RetinaNet, lacks'),
        (
            cascade(),
            FASTER,
            r"student's roi_head.bbox_head is a CascadeRoIHead.*set distill.methods.chen.heads='dense'",
        ),
        (faster_rcnn(), cascade(24), r"teacher's roi_head.bbox_head is a CascadeRoIHead.*heads='dense'"),
        (
            atss(),
            RETINA,
            r"student's bbox_head is a ATSSHead.*hard_share=1 and distill.methods.chen.regression_weight=0",
        ),
        (retinanet(), fcos(), r"teacher's bbox_head is a FCOSHead"),
    ],
)
def test_heads_that_cannot_be_compared_are_refused(student, teacher, message):
    with pytest.raises(DistillError, match=message) as caught:
        expand(student, teacher)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('pair', [(cascade(), FASTER), (faster_rcnn(), cascade(24))])
def test_the_remedy_for_cascades_works(pair):
    losses = Step(build(expand(*pair, heads='dense'))).losses
    assert torch.isfinite(losses['distill.loss_chen_rpn_cls_soft'])


@pytest.mark.parametrize('student', [atss(), fcos()])
def test_the_hint_needs_no_head(student):
    losses = Step(build(expand(student, **{**OFF, 'hint_weight': 0.5}))).losses
    assert losses['distill.loss_chen_hint'] > 0


def test_student_without_the_chosen_head_is_refused():
    with pytest.raises(DistillError, match=r'RetinaNet, has no roi_head'):
        expand(heads='roi')


def test_widths_that_differ_need_the_adaptation():
    with pytest.raises(DistillError, match=r"16 channels and the teacher 24.*adapt='auto'"):
        expand(adapt='never')


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(hard_share=1.5), r'hard_share\" is 1.5; it must be a number from 0 to 1\.'),
        (dict(regression_weight=-1), r'regression_weight\" is -1; it must be a number of at least 0\.'),
        (dict(temperature=0), r'temperature\" is 0; it must be a number above 0\.'),
    ],
)
def test_numbers_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(DistillError, match=message):
        expand(**keys)


def test_two_shares_of_one_loss_are_refused():
    with pytest.raises(DistillError, match=r'"loss_cls".*hard_share'):
        expand(others=dict(again=dict(type='Chen', **{**OFF, 'hard_share': 0.5})))
