"""Any loss of two features in the distill block, on any tap."""

from __future__ import annotations

import logging
from pathlib import Path
from unittest import mock

import pytest
import torch
from _helpers.tiny import batch, block, retinanet, run_config
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS as PLUGIN_MODELS

RECIPES = Path(__file__).resolve().parents[2] / 'configs/_base_'
MGD = dict(type='MGDLoss', alpha_mgd=2e-5)


@PLUGIN_MODELS.register_module(force=True)
class TeacherFirst(nn.Module):
    """A loss that names the teacher's feature before the student's."""

    def __init__(self, loss_weight: float = 3.0) -> None:
        super().__init__()

    def forward(self, t_feature, s_feature):
        return (s_feature - t_feature).abs().mean()


def expand(loss, teacher=None, **keys):
    """The expanded config of one loss."""
    methods = dict(x=dict(type='Feature', loss=loss, **keys))
    return expand_config(run_config('unused', distill=block(teacher=teacher or retinanet(width=24), methods=methods)))


def step(cfg):
    """The term of one training step, and the model behind a backward pass."""
    model = MODELS.build(cfg.model).train()
    term = model(**batch(model), mode='loss')['distill.loss_x']
    term.backward()
    return term, model


@pytest.mark.parametrize(
    ('loss', 'keys'),
    [
        (dict(type='ChannelWiseDivergence', tau=1, loss_weight=10), {}),
        (dict(type='mmrazor.PKDLoss', loss_weight=6), {}),
        (MGD, dict(tap='pre_norm', adapt=dict(type='MGDConnector', lambda_mgd=0.65))),
        (dict(type='DISTLoss'), dict(tap='bbox_head.retina_cls')),
        (dict(type='KLDivergence', reduction='mean'), dict(tap='bbox_head.retina_cls')),
        (dict(type='ATLoss'), dict(tap='backbone.layer3', adapt='never')),
        (dict(type='L2Loss', normalize=False), dict(adapt='always')),
    ],
    ids=lambda value: value.get('type'),
)
def test_one_step_with_losses_of_mmrazor(loss, keys):
    term, model = step(expand(loss, **keys))
    assert torch.isfinite(term) and term > 0
    assert model.architecture.backbone.conv1.weight.grad.abs().sum() > 0
    for connector in model.distiller.connectors.values():
        assert all(parameter.grad is not None for parameter in connector.parameters())


def test_one_loss_per_level_with_an_adaptation_where_widths_differ():
    distiller = expand(dict(type='PKDLoss')).model.distiller
    names = ['loss_x_level0', 'loss_x_level1', 'loss_x_level2']
    assert list(distiller.distill_losses) == list(distiller.connectors) == names
    assert distiller.distill_losses.loss_x_level0.type == 'mmrazor.PKDLoss'
    assert set(distiller.loss_forward_mappings.loss_x_level0) == {'preds_S', 'preds_T'}


@pytest.mark.parametrize(('adapt', 'expected'), [('auto', 0), ('always', 3), ('never', 0)])
def test_adaptation_of_equal_widths(adapt, expected):
    cfg = expand(dict(type='PKDLoss'), teacher=retinanet(depth=34), adapt=adapt)
    assert len(cfg.model.distiller.connectors) == expected


def test_finest_levels_alone():
    assert len(expand(dict(type='PKDLoss'), levels=2).model.distiller.distill_losses) == 2


def test_shared_head_gives_one_level_per_call():
    mappings = expand(dict(type='DISTLoss'), tap='bbox_head.retina_cls').model.distiller.loss_forward_mappings
    assert [item.logits_S.get('record_idx', 0) for item in mappings.values()] == [0, 1, 2]


def test_student_and_teacher_may_be_tapped_at_different_modules():
    distiller = expand(
        dict(type='PKDLoss'), tap=dict(student='backbone.layer2', teacher='neck.lateral_convs.0')
    ).model.distiller
    assert distiller.student_recorders.backbone_layer2.source == 'backbone.layer2'
    assert distiller.teacher_recorders.teacher_neck_lateral_convs_0.source == 'neck.lateral_convs.0'
    # The second stage of ResNet-18 with 8 base channels is 16 wide, the teacher's neck 24.
    connector = distiller.connectors.loss_x_level0
    assert (connector.in_channels, connector.out_channels) == (16, 24)


def test_features_are_told_apart_by_the_names_of_the_arguments():
    mapping = expand(dict(type='TeacherFirst')).model.distiller.loss_forward_mappings.loss_x_level0
    assert mapping.s_feature.from_student and not mapping.t_feature.from_student


@pytest.mark.parametrize(
    ('loss', 'keys', 'expected'), [({}, dict(loss_weight=2), 2), (dict(loss_weight=5), {}, 5), ({}, {}, None)]
)
def test_weight_is_the_losss_own(loss, keys, expected):
    losses = expand(dict(type='TeacherFirst', **loss), **keys).model.distiller.distill_losses
    assert losses.loss_x_level0.get('loss_weight') == expected


def test_class_maps_can_be_declared():
    assert expand(
        dict(type='DISTLoss'), tap='bbox_head.retina_cls', same_classes=True
    ).model.teachers.teacher.same_classes


@pytest.mark.parametrize(
    ('loss', 'keys', 'message'),
    [
        (dict(type='PKDLos'), {}, r"\"distill.methods.x.loss.type\" is 'PKDLos', .*did you mean \"PKDLoss\""),
        (dict(type='mmrazor.CWDLos'), {}, 'none of the losses'),
        (dict(type='PKDLoss', loss_wieght=1), {}, r'x.loss.loss_wieght" is no argument of PKDLoss: .*"loss_weight"'),
        (dict(type='FGDLoss'), {}, r'"distill.methods.x.loss.channels" is missing; FGDLoss cannot be built without it'),
        (MGD, dict(adapt=dict(type='MGDConnector', lambda_mg=1)), r'x.adapt.lambda_mg" is no argument of MGDConnector'),
        (dict(), {}, r'"distill.methods.x.loss" must be a dict with a "type"'),
        (
            dict(type='WSLD', num_classes=2),
            {},
            r'WSLD takes an argument "gt_labels", .* there are student, teacher, boxes, .*priors',
        ),
        (MGD, dict(loss_weight=2), r'MGDLoss has no loss_weight'),
        (
            dict(type='PKDLoss', loss_weight=1),
            dict(loss_weight=2),
            r'has a loss_weight and another one in its loss; keep',
        ),
        (MGD, dict(levels=0), r'levels" is 0; it must be a whole number of at least 1 or None'),
        (dict(type='PKDLoss', loss_weight='1'), {}, r"x.loss.loss_weight\" is '1'; it must be a number\."),
        (dict(type='PKDLoss', resize_stu='no'), {}, r"x.loss.resize_stu\" is 'no'; it must be True or False\."),
        (dict(type='KLDivergence', reduction=1), {}, r'x.loss.reduction" is 1; it must be a text\.'),
        (
            dict(type='PKDLoss', loss_weight=float('nan')),
            {},
            r'"distill.methods.x.loss.loss_weight" is nan; it must be a finite number\.',
        ),
        (
            MGD,
            dict(adapt=dict(type='MGDConnector', lambda_mgd=float('inf'))),
            r'"distill.methods.x.adapt.lambda_mgd" is inf; it must be a finite number\.',
        ),
        (
            MGD,
            dict(adapt=dict(type='MGDConnector', lambda_mgd='0.65')),
            r"x.adapt.lambda_mgd\" is '0.65'; it must be a number\.",
        ),
        (
            dict(type='FGILoss'),
            {},
            r'"distill.methods.x": FGILoss takes the list of all levels as its "\w+", .* of one level, or type=.FGI.\.',
        ),
        (MGD, dict(tap='backbone.layer9'), r'The tap "backbone.layer9" is no module .*did you mean "backbone.layer\d"'),
        (MGD, dict(tap=dict(student='neck')), r'must be .* dict\(student=<module path>, teacher=<module path>\)'),
        (MGD, dict(tap=dict(student='backbone.layer2', teacher='backbone.layer4')), 'within a factor of two'),
        (MGD, dict(adapt='sometimes'), "'auto' or 'always' or 'never'"),
        (MGD, dict(adapt=dict(type='MGDConector')), r'none of the connectors.*did you mean "MGDConnector"'),
    ],
)
def test_mistakes_are_one_sentence(loss, keys, message):
    with pytest.raises(DistillError, match=message) as caught:
        expand(loss, **keys)
    assert '\n' not in str(caught.value)


def test_widths_that_a_loss_cannot_compare():
    cfg = expand(dict(type='PKDLoss'), adapt='never')
    with pytest.raises(
        DistillError, match=r'In "loss_x_level0": .* of 4?\d* x 24 x .* with .* adapt the student to'
    ) as caught:
        step(cfg)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('loss', [dict(type='PKDLoss', loss_weight=1), dict(type='PKDLoss', loss_weight=None)])
def test_whole_numbers_and_none_are_no_mistakes_in_losses_of_others(loss):
    assert expand(loss).model.distiller.distill_losses.loss_x_level0.loss_weight is loss['loss_weight']


def test_classes_instead_of_their_names():
    """A config of the new style holds classes wherever another one holds names."""
    kinds = MODELS.children['mmrazor'].module_dict
    by_class = expand(
        dict(type=kinds['MGDLoss'], alpha_mgd=2e-5), adapt=dict(type=kinds['MGDConnector'], lambda_mgd=0.65)
    )
    by_name = expand(MGD, adapt=dict(type='MGDConnector', lambda_mgd=0.65))
    assert by_class.model.distiller == by_name.model.distiller


def test_recipes_are_mmrazors_settings():
    cwd = Config.fromfile(RECIPES / 'cwd/neck.py').distill.methods.cwd
    assert (cwd.loss.tau, cwd.loss_weight, cwd.get('levels')) == (1, 10, None)
    pkd = Config.fromfile(RECIPES / 'pkd/neck.py').distill.methods.pkd
    assert (pkd.loss_weight, pkd.levels) == (6, 4)


def test_more_levels_than_there_are_are_told():
    with mock.patch('mmkd_plugin.methods.feature.print_log') as told:
        model = expand(MGD, levels=99).model
    (sentence, _, level), _ = told.call_args
    assert 'x.levels" is 99, but RetinaNet and RetinaNet have 3 to compare there, of stride 8, 16, 32;' in sentence
    assert level == logging.WARNING
    assert len(model.distiller.distill_losses) == 3
