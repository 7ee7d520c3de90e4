"""What a model's listing says of its layers and of what methods know by name."""

from __future__ import annotations

import pytest
from _helpers import tiny, tiny_seg
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmkd_plugin.probe.listing import ModelLayers, list_layers


@pytest.fixture(scope='module')
def retinanet() -> ModelLayers:
    return list_layers(MODELS.build(tiny.retinanet()), 'student')


@pytest.fixture(scope='module')
def pspnet() -> ModelLayers:
    return list_layers(MODELS.build(tiny_seg.pspnet()), 'student')


def test_layer_of_the_backbone(retinanet: ModelLayers) -> None:
    layer = retinanet.layers['backbone.conv1']
    # 7 x 7 from 3 channels to 8, without bias.
    assert (layer.kind, layer.parameters) == ('Conv2d', 7 * 7 * 3 * 8)
    assert (layer.shapes, layer.strides) == (((8, 128, 128),), (2,))
    assert retinanet.image == (256, 256)


def test_parameters_are_those_of_all_that_a_layer_holds(retinanet: ModelLayers) -> None:
    # Two convolutions of 8 to 8 channels and their norms, twice.
    assert retinanet.layers['backbone.layer1'].parameters == 2 * 2 * (3 * 3 * 8 * 8 + 2 * 8)


def test_layer_that_runs_on_every_level(retinanet: ModelLayers) -> None:
    layer = retinanet.layers['bbox_head.retina_cls']
    assert layer.shapes == ((2, 32, 32), (2, 16, 16), (2, 8, 8))
    assert layer.strides == (8, 16, 32)
    assert layer.parameters == 3 * 3 * 16 * 2 + 2


def test_module_that_returns_several_maps_is_no_layer(retinanet: ModelLayers) -> None:
    assert 'neck' in retinanet.modules
    assert not {'backbone', 'neck', 'bbox_head'} & set(retinanet.layers)


def test_levels_name_the_module_that_returns_them(retinanet: ModelLayers) -> None:
    assert [known.path for known in retinanet.output] == [f'neck.fpn_convs.{index}' for index in range(3)]
    assert [known.path for known in retinanet.pre_norm] == [f'neck.fpn_convs.{index}.conv' for index in range(3)]
    assert {known.name for known in retinanet.output} == {'neck level'}
    assert retinanet.output[0].shapes == ((16, 32, 32),)
    assert retinanet.has_pre_norm


def test_level_that_a_function_makes_names_none() -> None:
    found = list_layers(MODELS.build(ConfigDict(tiny.faster_rcnn())), 'student')
    assert [bool(known.path) for known in found.output] == [True, True, True, True, False]
    assert found.output[4].shapes == ((16, 4, 4),)
    heads = {known.name: known.text for known in found.heads}
    assert heads['dense head'] == 'RPNHead, 1 sigmoid column'
    assert heads['RoI head'] == 'StandardRoIHead, 3 softmax columns'
    assert heads['anchors'] == '2 a cell at strides 4, 8, 16, 32, 64'


def test_heads_of_a_detector(retinanet: ModelLayers) -> None:
    assert [(known.name, known.path or known.text) for known in retinanet.heads] == [
        ('dense head', 'RetinaHead, 2 sigmoid columns'),
        ('dense head logits', 'bbox_head.retina_cls'),
        ('dense head boxes', 'bbox_head.retina_reg'),
        ('anchors', '1 a cell at strides 8, 16, 32'),
    ]


def test_heads_of_a_segmentor(pspnet: ModelLayers) -> None:
    assert [(known.name, known.path, known.shapes) for known in pspnet.heads] == [
        ('decode head feature', 'decode_head.bottleneck', ((16, 32, 32),)),
        ('decode head logits', 'decode_head.conv_seg', ((3, 32, 32),)),
        ('auxiliary feature', 'auxiliary_head.convs', ((16, 32, 32),)),
        ('auxiliary logits', 'auxiliary_head.conv_seg', ((3, 32, 32),)),
    ]


def test_levels_of_stages_have_no_convolution_of_their_own(pspnet: ModelLayers) -> None:
    assert [known.path for known in pspnet.output] == [f'backbone.layer{index}' for index in (1, 2, 3, 4)]
    assert not pspnet.has_pre_norm


def test_layers_stand_in_the_order_in_which_they_run(pspnet: ModelLayers) -> None:
    paths = list(pspnet.layers)
    wanted = [
        'backbone.maxpool',
        'backbone.layer1',
        'backbone.layer1.0',
        'backbone.layer1.0.conv1',
        'backbone.layer1.0.bn1',
        'backbone.layer1.1',
        'backbone.layer2',
        'decode_head',
        'decode_head.bottleneck',
        'decode_head.conv_seg',
    ]
    assert [path for path in paths if path in wanted] == wanted


def test_strides_are_in_pixels_of_the_students_image(retinanet: ModelLayers) -> None:
    teacher = list_layers(MODELS.build(tiny.retinanet()), 'teacher', scale=2.0)
    assert teacher.layers['bbox_head.retina_cls'].strides == (4, 8, 16)
    assert [known.strides for known in teacher.output] == [(4,), (8,), (16,)]
    assert teacher.output[0].shapes == retinanet.output[0].shapes
    anchors = next(known.text for known in teacher.heads if known.name == 'anchors')
    assert anchors == '1 a cell at strides 4, 8, 16'
