"""The light backbone of FGI's authors: its size, its map, what it deals out, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.errors import DistillError
from mmkd_plugin.models.lite_shuffle_net import LiteShuffleNet, ShuffleUnit, shuffled


@pytest.mark.parametrize(('width', 'stem', 'published'), [(1.0, 16, 1.6), (0.5, 24, 0.53), (0.25, 24, 0.21)])
def test_detectors_have_the_published_size(width, stem, published):
    """With the authors' head: a 3x3 convolution to nine anchors of three classes, a confidence and a box."""
    backbone = sum(item.numel() for item in LiteShuffleNet(width, stem).parameters())
    outputs = 9 * (3 + 1 + 4)
    detector = backbone + (9 * int(768 * width) + 1) * outputs
    assert abs(detector / 1e6 - published) < 0.01


@pytest.mark.parametrize(('width', 'channels'), [(1.0, 768), (0.5, 384), (0.25, 192)])
def test_one_map_of_stride_16_without_negative_values(width, channels):
    (feature,) = LiteShuffleNet(width)(torch.rand(2, 3, 48, 80))
    assert feature.shape == (2, channels, 3, 5)
    assert float(feature.min().detach()) == 0


def test_shuffle_deals_out_in_turn():
    inputs = torch.arange(2 * 6 * 4.0).view(2, 6, 2, 2)
    expected = inputs[:, [0, 2, 4, 1, 3, 5]]
    assert torch.equal(shuffled(inputs, 3), expected)


def test_a_unit_with_a_stride_keeps_its_pooled_input_in_front():
    unit = ShuffleUnit(24, 60, first_groups=1, stride=2)
    inputs = torch.ones(1, 24, 6, 6)
    assert torch.equal(unit(inputs)[:, :24], torch.ones(1, 24, 3, 3))
    assert unit.expand.conv.out_channels == 36 and unit.expand.conv.groups == 3


def test_a_unit_adds_its_input_but_for_the_last():
    for shortcut in (True, False):
        unit = ShuffleUnit(60, 60, shortcut=shortcut)
        torch.nn.init.zeros_(unit.expand.bn.weight)
        inputs = torch.rand(2, 60, 4, 4)
        assert torch.equal(unit(inputs), inputs if shortcut else torch.zeros_like(inputs))


def test_first_convolution_of_the_teacher_leaves_a_width_that_does_not_divide():
    unit = LiteShuffleNet(1.0, 16).stage1[0]
    assert unit.expand.conv.out_channels == 224 and unit.expand.conv.groups == 1
    assert unit.reduce.conv.groups == 1 and LiteShuffleNet(1.0, 16).stage1[1].reduce.conv.groups == 3


@pytest.mark.parametrize('options', [dict(width=0.3), dict(width=0), dict(width=0.25, stem_channels=60)])
def test_widths_that_do_not_divide_are_one_sentence(options):
    with pytest.raises(DistillError, match='choose a width of 1, 0.5, 0.25 or 0.2'):
        LiteShuffleNet(**options)
