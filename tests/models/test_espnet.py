"""ESPNet is the paper's network: its parts by hand arithmetic, its size by the published numbers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmseg')

from _helpers import tiny, tiny_seg
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_plugin.models import ESPHead, ESPNet
from mmkd_plugin.models.espnet import SpatialPyramid
from mmkd_plugin.registry import MODELS

CITYSCAPES = 19


def parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_size_is_the_published_one():
    """0.3635 M and 0.3492 M (ESPNet-C) in Liu et al., TPAMI 2020; 0.36 M in the paper itself."""
    assert parameters(ESPNet(), ESPHead(num_classes=CITYSCAPES)) == pytest.approx(0.3635e6, abs=50)
    assert parameters(ESPNet(), nn.Conv2d(256, CITYSCAPES, 1, bias=False)) == pytest.approx(0.3492e6, abs=50)


def test_branches_are_summed_from_the_smallest_dilation_on():
    """Centres of 1 to 5 on a reduced map of 2: the first stays alone, the others add up to 4, 10, 18 and 28."""
    pyramid = SpatialPyramid(1, 5, residual=False).eval()
    with torch.no_grad():
        pyramid.reduce.weight.fill_(2.0)
        for factor, branch in enumerate(pyramid.branches, start=1):
            branch.weight.zero_()
            branch.weight[..., 1, 1] = factor
        output = pyramid(torch.ones(1, 1, 4, 4)) * 1.001**0.5
    expected = torch.tensor([2.0, 4.0, 10.0, 18.0, 28.0])
    assert torch.allclose(output[0, :, 2, 2], expected)


def test_input_is_added_where_it_shall_be():
    pyramid = SpatialPyramid(10, 10).eval()
    for branch in pyramid.branches:
        nn.init.zeros_(branch.weight)
    inputs = torch.rand(1, 10, 3, 3)
    assert torch.allclose(pyramid(inputs) * 1.001**0.5, inputs)


def test_branches_see_as_far_as_their_dilation():
    """A single bright pixel reaches 16 cells and no further."""
    pyramid = SpatialPyramid(1, 5, residual=False).eval()
    for weight in (pyramid.reduce.weight, *(branch.weight for branch in pyramid.branches)):
        nn.init.ones_(weight)
    image = torch.zeros(1, 1, 49, 49)
    image[0, 0, 24, 24] = 1
    rows = pyramid(image)[0].detach().any(2).nonzero()
    assert [rows[rows[:, 0] == channel, 1].min().item() for channel in range(5)] == [23, 22, 20, 16, 8]


@pytest.mark.parametrize('size', [(64, 96), (45, 61)])
def test_levels_and_logits_have_their_strides(size):
    backbone, head = ESPNet(depths=(1, 1)), ESPHead(num_classes=5)
    levels = backbone(torch.rand(2, 3, *size))
    half, quarter, eighth = ([-(-side // stride) for side in size] for stride in (2, 4, 8))
    assert [list(level.shape[1:]) for level in levels] == [[19, *half], [131, *quarter], [256, *eighth]]
    assert list(head(levels).shape) == [2, 5, 2 * half[0], 2 * half[1]]


@pytest.mark.parametrize('light', [True, False])
def test_it_is_distilled_by_the_block(light, tmp_path):
    """With its own decoder and with a stock head, under a PSPNet: pixels and pairs."""
    init_default_scope('mmseg')
    model = tiny_seg.pspnet(auxiliary=False)
    model['backbone'] = dict(type='mmkd_plugin.ESPNet', depths=(1, 1))
    classes = len(tiny_seg.CLASSES)
    if light:
        model['decode_head'] = dict(type='mmkd_plugin.ESPHead', num_classes=classes, align_corners=False)
    else:
        model['decode_head'] = dict(
            type='FCNHead',
            in_channels=256,
            in_index=2,
            channels=256,
            num_convs=0,
            concat_input=False,
            num_classes=classes,
            align_corners=False,
        )
    methods = dict(pixel=dict(type='PixelWise'), pair=dict(type='PairWise'))
    block = tiny_seg.block({}, methods=methods)
    runner = tiny.build(tiny_seg.run_config(tmp_path, model=model, distill=block))
    runner.train()
    for term in methods:
        assert all(0 < value < 100 for value in tiny.losses_of(runner, f'distill.loss_{term}'))
    assert isinstance(runner.model.student.backbone, MODELS.get('mmkd_plugin.ESPNet'))
