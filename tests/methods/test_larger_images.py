"""A teacher that sees larger or smaller images than its student."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import block, faster_rcnn, retinanet, run_config
from _helpers.tiny_chen import Step, build, expand
from torch.nn.functional import interpolate

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError

FASTER = faster_rcnn(width=24)


@pytest.mark.parametrize('scale', [3, 1.5, 0, -2])
def test_other_scales_are_refused(scale):
    with pytest.raises(DistillError, match=r'"distill.teacher_scale" is .*power of 2'):
        DistillBlock.parse(block(teacher_scale=scale))


@pytest.mark.parametrize('family', [retinanet, faster_rcnn])
def test_larger_images_match_levels_by_what_a_cell_covers(family):
    config = expand(family(), family(width=24), block_keys=dict(teacher_scale=2))
    assert config.teachers.teacher.teacher_scale == 2
    mapping = config.distiller.loss_forward_mappings
    name = 'rpn' if family is faster_rcnn else 'dense'
    levels = 4 if family is faster_rcnn else 2
    entries = [value for key, value in mapping.items() if f'_{name}_cls' in key]
    assert [(item.student.record_idx, item.teacher.record_idx) for item in entries] == [
        (index, index + 1) for index in range(levels)
    ]
    hints = [value for key, value in mapping.items() if '_hint' in key]
    assert [(item.student.data_idx, item.teacher.data_idx) for item in hints] == [
        (index, index + 1) for index in range(levels)
    ]


def test_larger_images_by_hand():
    """The teacher called by hand on the enlarged batch and the RoIs in its pixels."""
    model = build(expand(faster_rcnn(), FASTER, block_keys=dict(teacher_scale=2)))
    step = Step(model)
    teacher, inputs = model.teacher.model, step.data['inputs']
    larger = interpolate(inputs, size=[2 * side for side in inputs.shape[2:]], mode='bilinear')
    (sample,) = step.records['roi_head_bbox_head_samples']
    rois = sample['rois'].clone()
    rois[:, 1:] *= 2
    with torch.no_grad():
        features = teacher.extract_feat(larger)
        scores = teacher.roi_head._bbox_forward(features, rois)['cls_score']
        logits = teacher.rpn_head(features)[0]
    torch.testing.assert_close(step.records['teacher_roi_head_bbox_head_predictions'][0]['logits'], scores)
    for level in range(4):
        theirs = step.records['teacher_rpn_head_predictions'][level + 1]['logits']
        ours = step.records['rpn_head_samples'][level]['logits']
        assert ours.shape == theirs.shape
        torch.testing.assert_close(theirs[:, 0], logits[level + 1].permute(0, 2, 3, 1).flatten())
    hint = sum(
        ((model.distiller.connectors[f'loss_chen_hint_level{i}'](own) - features[i + 1]) ** 2).mean()
        for i, own in enumerate(model.architecture.extract_feat(inputs)[:4])
    )
    torch.testing.assert_close(step.losses['distill.loss_chen_hint'], 0.5 * hint)


@pytest.mark.parametrize('method', [dict(type='FGD'), dict(type='FGI', base_size=8)])
def test_larger_images_for_feature_methods(method):
    distill = block(teacher=FASTER, teacher_scale=2, methods=dict(other=method))
    model = build(expand_config(run_config('unused', model=faster_rcnn(), distill=distill)).model)
    terms = {name: value for name, value in Step(model).losses.items() if name.startswith('distill.')}
    assert terms and all(torch.isfinite(value) and value > 0 for value in terms.values())


def test_smaller_images():
    losses = Step(build(expand(block_keys=dict(teacher_scale=0.5)))).losses
    assert losses['distill.loss_chen_dense_cls_soft'] > 0


def test_anchors_that_no_scaled_level_has_are_refused():
    with pytest.raises(DistillError, match=r'no anchors of the same stride .* 8, 16, 32 and 1, 2, 4 pixels'):
        expand(hint_weight=0, block_keys=dict(teacher_scale=8))
