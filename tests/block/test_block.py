"""The distill block: what it accepts, what it refuses, and what it becomes."""

from __future__ import annotations

import pytest
from _helpers.tiny import block, retinanet, run_config
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import FGD
from mmkd_plugin.probe.models import ModelPair, probe


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(techer='x'), r'"distill.techer" is not a key.*did you mean "teacher"'),
        (dict(methods=dict(fgd=dict(type='FDG'))), r"'FDG', which is no method.*\"FGD\""),
        (dict(methods=dict(fgd=dict(type='FGD', temprature=1.0))), r'"distill.methods.fgd.temprature".*"temperature"'),
        (
            dict(methods=dict(fgd=dict(type='FGD', temperature='warm'))),
            r'"distill.methods.fgd.temperature" is .*a number',
        ),
        (dict(methods=dict(fgd=dict(type='FGD', tap='conv'))), "'pre_norm' or 'output'"),
        (dict(methods=dict(fgd='FGD')), r'must be a dict with a "type"'),
        (dict(methods=dict()), 'names no method'),
        (dict(inherit='yes'), r'"distill.inherit" is .*True or False or .auto'),
        (
            dict(methods=dict(fgd=dict(type='FGD', temperature=0))),
            r'"distill.methods.fgd.temperature" is 0; it must be a number above 0\.',
        ),
        (
            dict(methods=dict(fgd=dict(type='FGD', loss_weight=-1))),
            r'"distill.methods.fgd.loss_weight" is -1; it must be a number of at least 0 or .auto.\.',
        ),
        (
            dict(methods=dict(fgd=dict(type='FGD', loss_weight=float('nan')))),
            r'"distill.methods.fgd.loss_weight" is nan; it must be a number of at least 0 or .auto.\.',
        ),
        (
            dict(methods=dict(fgd=dict(type='FGD', foreground_weight=float('inf')))),
            r'"distill.methods.fgd.foreground_weight" is inf; it must be a number of at least 0\.',
        ),
        (dict(teacher_scale=float('nan')), r'"distill.teacher_scale" is nan; it must be a number that is a power of 2'),
        (
            dict(methods=dict(fgd=dict(type='FGD', schedule=dict(final=float('nan'))))),
            r'"distill.methods.fgd.schedule.final" is nan',
        ),
        (
            dict(methods=dict(seg=dict(type='PSPNetKD', temperature=float('nan')))),
            r'"distill.methods.seg.temperature" is nan; it must be a number above 0\.',
        ),
        (
            dict(methods=dict(fgd=dict(type='FGD', weight=0.5))),
            r'"distill.methods.fgd.weight" is now called otherwise; write loss_weight\.',
        ),
        (
            dict(methods=dict(chen=dict(type='Chen', hint_reduction='batch'))),
            r'"distill.methods.chen.hint_reduction" is .batch.*did you mean "batchmean"',
        ),
        (dict(methods={'f.g': dict(type='FGD')}), '"f.g" cannot name a method'),
        (dict(self_check=1), r'"distill.self_check" is 1; it must be True or False'),
    ],
)
def test_mistakes_are_one_sentence(changes, message):
    with pytest.raises(DistillError, match=message) as caught:
        DistillBlock.parse(block(**changes))
    assert '\n' not in str(caught.value)


def test_infinity_in_a_teachers_own_config_is_its_business():
    teacher = dict(retinanet(), ranges=[(0, float('inf'))])
    assert DistillBlock.parse(block(teacher=teacher)).teachers['teacher'].teacher == teacher


def test_class_instead_of_the_name_of_a_method():
    methods = dict(fgd=dict(type=FGD))
    assert isinstance(DistillBlock.parse(block(methods=methods)).methods['fgd'], FGD)


def test_scope_keys_of_mmengine_are_passed_over():
    parsed = DistillBlock.parse(
        dict(block(methods=dict(_scope_='mmkd_plugin', fgd=dict(type='FGD', _scope_='x'))), _scope_='x')
    )
    assert list(parsed.methods) == ['fgd']


def test_method_set_to_none_is_removed():
    assert not DistillBlock.parse(block(methods=dict(fgd=None))).methods


def test_whole_numbers_are_taken_as_floats():
    parsed = DistillBlock.parse(block(methods=dict(fgd=dict(type='FGD', temperature=1))))
    assert isinstance(parsed.methods['fgd'].temperature, float)


def test_expansion_names_every_channel():
    cfg = expand_config(run_config('unused', distill=block()))
    distiller = cfg.model.distiller
    assert list(distiller.distill_losses) == ['loss_fgd_level0', 'loss_fgd_level1', 'loss_fgd_level2']
    assert distiller.connectors.loss_fgd_level0.in_channels == 16
    assert distiller.connectors.loss_fgd_level0.out_channels == 24
    assert distiller.student_recorders.neck_fpn_convs_0_conv.source == 'neck.fpn_convs.0.conv'


def test_equal_widths_need_no_connector():
    cfg = expand_config(run_config('unused', distill=block(teacher=retinanet(depth=34))))
    assert not cfg.model.distiller.connectors


def test_without_a_block_there_is_nothing_to_expand():
    with pytest.raises(DistillError, match='no distill block'):
        expand_config(run_config('unused'))


def taps(**neck) -> list[tuple[str, int, int]]:
    model = retinanet()
    model['neck'].update(neck)
    levels = probe(MODELS.build(model), 'student').pre_norm
    return [(level.source, level.channels, level.stride) for level in levels]


def test_levels_are_the_necks_last_convolutions():
    assert taps() == [(f'neck.fpn_convs.{index}.conv', 16, 8 * 2**index) for index in range(3)]


def test_convolution_before_norm_and_activation():
    norm = dict(norm_cfg=dict(type='GN', num_groups=4), act_cfg=dict(type='ReLU'))
    assert taps(**norm) == [(f'neck.fpn_convs.{index}.conv', 16, 8 * 2**index) for index in range(3)]


def test_max_pooled_level_is_left_out():
    assert [stride for _, _, stride in taps(num_outs=4)] == [8, 16, 32]


def test_extra_convolution_is_a_level():
    assert [stride for _, _, stride in taps(num_outs=4, add_extra_convs='on_output')] == [8, 16, 32, 64]


def test_probe_leaves_the_model_as_it_was():
    model = MODELS.build(retinanet()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    probe(model, 'student')
    assert all(module.training for module in model.modules() if not isinstance(module, type(model.data_preprocessor)))
    assert all((before[key] == value).all() for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_models_without_a_common_stride_are_refused():
    fine, coarse = retinanet(), retinanet()
    fine['neck'].update(num_outs=1, start_level=0, end_level=0)
    coarse['neck'].update(num_outs=1, start_level=3)
    pair = ModelPair(probe(MODELS.build(fine), 'student'), probe(MODELS.build(coarse), 'teacher'))
    with pytest.raises(DistillError, match='no levels whose strides lie within a factor of two'):
        pair.levels('output')
