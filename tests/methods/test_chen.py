"""Chen et al. 2017 in the distill block: its expansion."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.tiny import block, faster_rcnn, retinanet
from _helpers.tiny_chen import OFF, Step, build, expand, two_stage
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.errors import DistillError


def test_both_heads_of_two_stages_and_the_one_of_one_stage():
    names = {name.partition('_level')[0] for name in two_stage().distiller.distill_losses}
    parts = ('rpn_cls', 'rpn_reg', 'roi_cls', 'roi_reg', 'hint')
    assert names == {f'loss_chen_{part}' for part in parts}
    names = {name.partition('_level')[0] for name in expand().distiller.distill_losses}
    assert names == {'loss_chen_dense_cls', 'loss_chen_dense_reg', 'loss_chen_hint'}


def test_hard_losses_have_the_share_mu():
    assert two_stage(hard_share=0.3).student_loss_weights == {'loss_rpn_cls': 0.3, 'loss_cls': 0.3}
    config = expand(hard_share=0.3)
    assert config.student_loss_weights == {'loss_cls': 0.3}
    assert math.isclose(MODELS.build(config.distiller.distill_losses.loss_chen_dense_cls_level0).weight, 0.7)


@pytest.mark.parametrize('part', [('hard_share', 'cls'), ('regression_weight', 'reg'), ('hint_weight', 'hint')])
def test_each_part_alone(part):
    key, name = part
    config = two_stage(**{**OFF, key: 0.5})
    losses = config.distiller.distill_losses
    assert losses and all(f'_{name}' in loss for loss in losses)
    assert ('student_loss_weights' in config) is (key == 'hard_share')
    recorders = set(config.distiller.student_recorders) | set(config.distiller.teacher_recorders)
    if key == 'hint_weight':
        assert recorders == {'neck', 'teacher_neck'} and 'same_classes' not in config.teachers.teacher
    else:
        assert not {'neck', 'teacher_neck'} & recorders and config.teachers.teacher.same_classes


def test_the_hint_may_be_the_backbones():
    config = expand(**{**OFF, 'hint_weight': 0.5, 'tap': 'backbone'})
    recorders = config.distiller.student_recorders
    assert {item.source for item in recorders.values()} == {'backbone'}
    # RetinaNet's neck leaves the first stage out, the backbone returns it.
    widths = [(item.in_channels, item.out_channels) for item in config.distiller.connectors.values()]
    assert widths == [(8, 8), (16, 16), (32, 32), (64, 64)]


def test_the_hint_may_be_a_modules():
    config = expand(**{**OFF, 'hint_weight': 0.5, 'tap': 'backbone.layer3'})
    assert {item.source for item in config.distiller.teacher_recorders.values()} == {'backbone.layer3'}
    (connector,) = config.distiller.connectors.values()
    assert (connector.in_channels, connector.out_channels) == (32, 32)
    with pytest.raises(DistillError, match='did you mean "backbone.layer3'):
        expand(**{**OFF, 'hint_weight': 0.5, 'tap': 'backbone.layr3'})


def test_the_papers_ablation_is_configuration():
    """CLS, CLS-W, L2, L2-B, hint and hint with adaptation."""
    same = retinanet(depth=34)

    def only(**keys):
        return expand(teacher=same, **{**OFF, **keys}).distiller

    assert only(hard_share=0.5, background_weight=1).distill_losses.loss_chen_dense_cls_level0.background_weight == 1
    assert only(hard_share=0.5).distill_losses.loss_chen_dense_cls_level0.background_weight == 1.5
    assert only(regression_weight=0.5, regression_form='l2').distill_losses.loss_chen_dense_reg_level0.form == 'l2'
    assert only(regression_weight=0.5).distill_losses.loss_chen_dense_reg_level0.form == 'bounded'
    assert not only(hint_weight=0.5, adapt='never').connectors
    connectors = only(hint_weight=0.5).connectors
    assert [(item.in_channels, item.out_channels) for item in connectors.values()] == [(16, 16)] * 3


def test_soft_classes_beside_the_whole_hard_loss():
    config = expand(**{**OFF, 'hard_share': 1, 'soft_weight': 0.5})
    assert 'student_loss_weights' not in config and len(config.distiller.distill_losses) == 3
    half = Step(build(expand(**{**OFF, 'hard_share': 0.5}))).losses['distill.loss_chen_dense_cls_soft']
    assert Step(build(config)).losses['distill.loss_chen_dense_cls_soft'] == half > 0
    none = expand(hard_share=0.5, soft_weight=0, heads='dense')
    assert 'student_loss_weights' not in none and not any('_cls' in name for name in none.distiller.distill_losses)


@pytest.mark.parametrize('keys', [OFF, dict(loss_weight=0)])
def test_everything_off_is_off(keys):
    assert not DistillBlock.parse(block(methods=dict(chen=dict(type='Chen', **keys)))).methods


def test_one_head_of_two():
    names = two_stage(heads='dense', hint_weight=0).distiller.distill_losses
    assert names and all('_rpn_' in name for name in names)
    config = two_stage(heads='roi', hint_weight=0)
    assert set(config.distiller.distill_losses) == {'loss_chen_roi_cls', 'loss_chen_roi_reg'}
    assert config.student_loss_weights == {'loss_cls': 0.5}


def test_levels_that_the_teacher_lacks_are_left_out():
    teacher = retinanet(width=24)
    teacher['neck']['num_outs'] = 2
    teacher['neck']['end_level'] = 2
    teacher['neck']['in_channels'] = [8, 16, 32]
    teacher['backbone']['out_indices'] = (0, 1, 2)
    teacher['bbox_head']['anchor_generator']['strides'] = [8, 16]
    config = expand(teacher=teacher)
    mapping = config.distiller.loss_forward_mappings
    assert [name for name in mapping if '_cls' in name] == [f'loss_chen_dense_cls_level{index}' for index in (0, 1)]
    losses = Step(build(config)).losses
    assert losses['distill.loss_chen_dense_cls_soft'] > 0


def test_levels_are_matched_by_stride_and_not_by_position():
    teacher = faster_rcnn(width=24)
    teacher['neck'].update(start_level=1, num_outs=3)
    teacher['rpn_head']['anchor_generator']['strides'] = [8, 16, 32]
    teacher['roi_head']['bbox_roi_extractor']['featmap_strides'] = [8, 16, 32]
    config = expand(faster_rcnn(), teacher, hint_weight=0)
    mapping = config.distiller.loss_forward_mappings
    entries = [mapping[f'loss_chen_rpn_cls_level{index}'] for index in range(3)]
    assert [(item.student.record_idx, item.teacher.record_idx) for item in entries] == [(1, 0), (2, 1), (3, 2)]
    losses = Step(build(config)).losses
    assert torch.isfinite(losses['distill.loss_chen_roi_cls_soft'])
