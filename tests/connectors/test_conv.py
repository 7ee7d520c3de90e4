"""The adaptation layer keeps the size and changes the width."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.connectors import ConvConnector


@pytest.mark.parametrize('kernel_size', [1, 3])
def test_shape(kernel_size):
    assert ConvConnector(3, 5, kernel_size)(torch.ones(2, 3, 4, 6)).shape == (2, 5, 4, 6)


def test_values_are_those_of_a_convolution_with_bias():
    connector = ConvConnector(2, 1)
    with torch.no_grad():
        connector.conv.weight.copy_(torch.tensor([[[[2.0]], [[3.0]]]]))
        connector.conv.bias.fill_(-6)
    feature = torch.tensor([[[[1.0]], [[1.0]]]])
    assert connector(feature).item() == -1
    rectified = ConvConnector(2, 1, relu=True)
    rectified.load_state_dict(connector.state_dict())
    assert rectified(feature).item() == 0
