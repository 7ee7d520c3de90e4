"""A batch norm is folded only where the forward pass shows that it takes what a convolution gave, and nobody else."""

from __future__ import annotations

import torch
from torch import nn

from mmkd_plugin.teachers.flow import traced
from mmkd_plugin.teachers.savings import FuseBN


class Net(nn.Module):
    """Two convolutions and two batch norms, called in an order of the test's choice."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
        for norm in (self.bn1, self.bn2):
            for value in norm.state_dict().values():
                if value.is_floating_point():
                    nn.init.uniform_(value, 0.5, 2)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.order.split():
            x = x.relu() if name == 'relu' else getattr(self, name)(x)
        return x


def folded(order, prepare=lambda net: None, read=lambda net: []):
    """The numbers of pairs that may be folded, and the net's outputs before and after that."""
    torch.manual_seed(0)
    net, image = Net(order), torch.randn(2, 3, 16, 16)
    prepare(net)
    with traced(net, read(net)) as flow:
        before = net(image)
    names = {module: name for name, module in net.named_modules()}
    pairs = [(names[pair.conv], names[pair.norm]) for pair in flow.pairs()]
    fuse = FuseBN(net)
    fuse.apply(flow)
    after = net(image)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    fuse.undo()
    assert torch.equal(net(image), before) and isinstance(net.bn1, nn.BatchNorm2d)
    return pairs


def test_norms_behind_their_convolutions():
    assert folded('conv1 bn1 relu conv2 bn2') == [('conv1', 'bn1'), ('conv2', 'bn2')]


def test_the_order_of_calls_counts_not_that_of_names():
    assert folded('conv2 bn1 conv1 bn2') == [('conv2', 'bn1'), ('conv1', 'bn2')]


def test_norms_before_their_convolutions():
    assert folded('bn1 relu conv1 bn2 relu conv2') == [('conv1', 'bn2')]


def test_what_lies_in_between():
    assert folded('conv1 relu bn1') == []


def test_what_is_called_twice():
    assert folded('conv1 bn1 conv1 bn2') == []
    assert folded('conv1 bn1 conv2 bn1') == []


def test_what_is_recorded():
    assert folded('conv1 bn1 conv2 bn2', lambda net: net.bn1.register_forward_hook(lambda *_: None)) == [
        ('conv2', 'bn2')
    ]
    assert folded('conv1 bn1 conv2 bn2', read=lambda net: [net.conv2]) == [('conv1', 'bn1')]


def test_shared_weights_stay():
    def share(net):
        net.conv2.weight = net.conv1.weight

    torch.manual_seed(0)
    net, image = Net('conv1 bn1 conv2 bn2'), torch.randn(2, 3, 16, 16)
    share(net)
    with traced(net, []) as flow:
        before = net(image)
    assert FuseBN(net).apply(flow) == '0 of 2 batch norms'
    assert torch.equal(net(image), before)


def test_batch_statistics_are_not_folded():
    assert folded('conv1 bn1', lambda net: net.bn1.train()) == []


def test_no_hook_stays():
    net = Net('conv1 bn1')
    with traced(net, []):
        net(torch.randn(2, 3, 8, 8))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
