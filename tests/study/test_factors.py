"""Factors of a layer's weight: a product of full rank is the layer, and less is as near as it can be."""

from __future__ import annotations

import builtins
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.models.classic import AlexNet
from mmkd_plugin.models.factored import FactoredLinear, TuckerConv2d
from mmkd_plugin.study.factors import automatic_ranks, fill, require_tensorly, truncated

ROOT = Path(__file__).resolve().parents[2]


def low_rank_conv(inputs: int, outputs: int, ranks: tuple[int, int], noise: float) -> nn.Conv2d:
    """A convolution whose weight is a Tucker-2 product and noise."""
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    core = torch.randn(ranks[1], ranks[0], 3, 3)
    inner, outer = torch.randn(inputs, ranks[0]), torch.randn(outputs, ranks[1])
    weight = torch.einsum('orij,cr,do->dcij', core, inner, outer)
    weight = weight / weight.std() + noise * torch.randn_like(weight)
    conv.weight.data.copy_(weight)
    return conv


@pytest.mark.parametrize('ranks', [(8, 12), (None, 12), (8, None)])
def test_a_product_of_full_rank_is_the_convolution(ranks):
    pytest.importorskip('tensorly')
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, 2, 1)
    product = TuckerConv2d(conv, ranks)
    assert fill(product, conv) < 1e-6
    images = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(product(images), conv(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('sides', [(7, 5), (5, 7)])
def test_a_product_of_full_rank_is_the_linear_layer(sides):
    torch.manual_seed(0)
    linear = nn.Linear(*sides)
    product = FactoredLinear(linear, 5)
    assert fill(product, linear) < 1e-6
    inputs = torch.randn(3, sides[0])
    torch.testing.assert_close(product(inputs), linear(inputs), rtol=1e-4, atol=1e-5)


def test_the_error_of_a_linear_layer_is_that_of_the_values_left_out():
    linear = nn.Linear(3, 3, bias=False)
    linear.weight.data.copy_(torch.diag(torch.tensor([2.0, 2.0, 1.0])))
    # The root of 1 in the root of 4 + 4 + 1.
    assert fill(FactoredLinear(linear, 2), linear) == pytest.approx(1 / 3)


@pytest.mark.parametrize('shape', [(6, 9), (9, 6)])
def test_both_factors_of_a_matrix_are_equally_large(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    first, last = truncated(weight, 4)
    left, values, right = torch.linalg.svd(weight)
    torch.testing.assert_close(last @ first, left[:, :4] @ torch.diag(values[:4]) @ right[:4])
    torch.testing.assert_close(first.norm(dim=1), values[:4].sqrt())
    torch.testing.assert_close(last.norm(dim=0), values[:4].sqrt())


def test_more_ranks_are_never_further_away():
    pytest.importorskip('tensorly')
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3)
    errors = [fill(TuckerConv2d(conv, (rank, rank)), conv) for rank in (2, 6, 10, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1


def test_variational_bayes_finds_the_ranks_beneath_noise():
    pytest.importorskip('tensorly')
    conv = low_rank_conv(32, 48, (4, 7), noise=0.1)
    ranks = automatic_ranks(conv, 'vbmf')
    assert ranks == (4, 7)
    assert fill(TuckerConv2d(conv, ranks), conv) < 0.12


def test_a_share_is_one_of_the_channels():
    assert automatic_ranks(nn.Conv2d(32, 64, 3), 0.25) == (8, 16)
    assert automatic_ranks(nn.Linear(100, 30), 0.5) == 15
    # The colours of an image stay.
    assert automatic_ranks(nn.Conv2d(3, 64, 7), 0.5) == (None, 32)


@pytest.mark.parametrize('layer', [nn.Conv2d(32, 64, 3), nn.Linear(64, 64)])
def test_what_would_not_be_smaller_is_left(layer):
    assert automatic_ranks(layer, 1.0) is None
    assert automatic_ranks(layer, 0.25) is not None


def test_the_shipped_student_has_the_ranks_that_its_command_gives():
    backbone = AlexNet()
    base = Config.fromfile(ROOT / 'configs/_base_/models/faster-rcnn_tucker.py').model
    convs = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d)}
    assert dict(base.backbone.ranks) == {name: automatic_ranks(layer, 0.5) for name, layer in convs.items()}
    assert set(base.roi_head.bbox_head.ranks.values()) == {automatic_ranks(nn.Linear(9216, 4096), 0.1)}
    command = (ROOT / 'configs/_base_/models/faster-rcnn_tucker.py').read_text()
    assert '--ranks 0.5 roi_head.bbox_head.shared_fcs.0=410 roi_head.bbox_head.shared_fcs.1=410' in command


def test_a_layer_of_noise_keeps_one_channel():
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3)
    nn.init.normal_(conv.weight)
    assert automatic_ranks(conv, 'vbmf') == (1, 1)


def test_a_weight_of_zeros_has_no_error():
    pytest.importorskip('tensorly')
    conv = nn.Conv2d(8, 8, 3)
    nn.init.zeros_(conv.weight)
    error = fill(TuckerConv2d(conv, (2, 2)), conv)
    assert error == 0 and math.isfinite(error)


def test_without_tensorly_it_is_told_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.split('.')[0] == 'tensorly':
            raise ImportError("No module named 'tensorly'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, '__import__', refuse)
    with pytest.raises(DistillError, match='run "pip install tensorly"'):
        require_tensorly()
