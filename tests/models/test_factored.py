"""Factored layers: what they compute, how they are built, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import nn

import mmkd_plugin.models  # noqa: F401
from mmkd_plugin.errors import DistillError
from mmkd_plugin.models.factored import FactoredLinear, TuckerConv2d, factor_layers, obstacle


def test_a_tucker_convolution_by_hand():
    conv = TuckerConv2d(nn.Conv2d(2, 3, 1), (1, 1))
    # 1 * 5 + 2 * 6 = 17, ten times that is 170, and each output channel takes its share and its bias.
    conv.fill(
        torch.tensor([[[[10.0]]]]),
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[1.0], [0.0], [-1.0]]),
        torch.tensor([0.5, 0.25, 0.0]),
    )
    assert conv(torch.tensor([5.0, 6.0]).view(1, 2, 1, 1)).flatten().tolist() == [170.5, 0.25, -170]


def test_a_factored_linear_by_hand():
    linear = FactoredLinear(nn.Linear(2, 2), 1)
    linear.fill(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), torch.tensor([1.0, 0.0]))
    assert linear(torch.tensor([1.0, 1.0])).tolist() == [10, 12]


@pytest.mark.parametrize('ranks', [(2, 3), (None, 3), (2, None)])
@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.Conv2d(4, 6, (3, 5), dilation=2, padding=(2, 4), bias=False),
        nn.Conv2d(4, 6, 5, padding='same', padding_mode='reflect'),
    ],
)
def test_the_shape_of_the_output_stays(conv, ranks):
    images = torch.rand(2, 4, 17, 20)
    product = TuckerConv2d(conv, ranks)
    assert product(images).shape == conv(images).shape
    assert [name for name, _ in product.named_children()] == [
        *(['first'] if ranks[0] else []),
        'core',
        *(['last'] if ranks[1] else []),
    ]
    # A bias stands at the end alone.
    biases = [name for name, _ in product.named_parameters() if name.endswith('bias')]
    assert biases == ([] if conv.bias is None else ['last.bias' if ranks[1] else 'core.bias'])


def test_a_frozen_layer_stays_frozen():
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)).eval()
    module[0].requires_grad_(False)
    factor_layers(module, {'0': (2, 2), '1': (2, 2)})
    assert [parameter.requires_grad for parameter in module.parameters()] == [False] * 4 + [True] * 4
    assert not any(item.training for item in module.modules())


def test_a_layer_of_a_conv_module_is_replaced():
    module = ConvModule(8, 8, 3, padding=1, norm_cfg=dict(type='BN'))
    factor_layers(module, {'conv': (4, 4)})
    assert isinstance(module.conv, TuckerConv2d)
    assert module(torch.rand(2, 8, 5, 5)).shape == (2, 8, 5, 5)


def test_a_config_builds_a_module_of_its_own_class():
    config = dict(type='mmkd_plugin.Factored', of='mmkd_plugin.VGG', depth=11, ranks={'features.8': (8, 16)})
    model = MODELS.build(config)
    assert type(model).__name__ == 'VGG'
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if '.8.' in key}
    assert shapes == {
        'features.8.first.weight': (8, 256, 1, 1),
        'features.8.core.weight': (16, 8, 3, 3),
        'features.8.last.weight': (256, 16, 1, 1),
        'features.8.last.bias': (256,),
    }
    assert model(torch.rand(1, 3, 64, 64))[0].shape == (1, 512, 4, 4)


@pytest.mark.parametrize(
    ('layer', 'why'),
    [
        (nn.Conv2d(4, 4, 3), ''),
        (nn.Linear(4, 4), ''),
        (nn.Conv2d(4, 4, 1), '1 x 1'),
        (nn.Conv2d(4, 4, 3, groups=4), 'depthwise'),
        (nn.Conv2d(4, 4, 3, groups=2), 'grouped'),
        (MODELS.build(dict(type='ConvWS', in_channels=4, out_channels=4, kernel_size=3)), 'a ConvWS2d'),
        (nn.BatchNorm2d(4), None),
    ],
)
def test_what_can_be_factored(layer, why):
    assert obstacle(layer) == why


@pytest.mark.parametrize(
    ('ranks', 'sentence'),
    [
        ({'cnv': (2, 2)}, 'has no layer "cnv" to factor: did you mean "conv"?'),
        ({'conv': (2, 9)}, '9 is no rank for "conv" of ModuleDict, which has 6 output channels; give a whole number'),
        ({'conv': (0, 2)}, '0 is no rank'),
        ({'conv': (2.5, 2)}, '2.5 is no rank'),
        ({'conv': 2}, 'a convolution takes two'),
        ({'conv': (None, None)}, 'a convolution takes two'),
        ({'linear': (2, 2)}, r'\(2, 2\) is no rank'),
        ({'linear': 4}, '4 is no rank for "linear" of ModuleDict, which has 3 features'),
        ({'deep': (1, 1)}, '"deep" of ModuleDict cannot be factored, since it is depthwise; leave it out'),
        ({'norm': (1, 1)}, 'since it is a BatchNorm2d'),
    ],
)
def test_what_does_not_fit_is_refused(ranks, sentence):
    module = nn.ModuleDict(
        dict(
            conv=nn.Conv2d(4, 6, 3),
            linear=nn.Linear(5, 3),
            deep=nn.Conv2d(4, 4, 3, groups=4),
            norm=nn.BatchNorm2d(4),
        )
    )
    with pytest.raises(DistillError, match=sentence):
        factor_layers(module, ranks)
