"""Convolutions and fully-connected layers as products of smaller ones, as Kim et al., ICLR 2016, compress networks.

``type='mmkd_plugin.Factored', of=<type>`` in a config builds the module of that type with some of its layers replaced.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Optional, Sequence, Union

import torch
from mmcv.cnn.bricks.wrappers import Conv2d as PatientConv2d
from mmcv.cnn.bricks.wrappers import Linear as PatientLinear
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import MODELS

Ranks = Union[int, Sequence[Optional[int]]]
"""Of a convolution the channels of its input and of its output, None for a side that is not factored; or one number for
a fully-connected layer."""


class TuckerConv2d(nn.Sequential):
    """A convolution in Tucker-2 form: 1 x 1 to fewer channels, k x k between those, 1 x 1 to all channels.

    Args:
        conv: The convolution that it stands for; its weights are not taken.
        ranks: Channels on the side of the input and on that of the output, None for a side that is not factored.
    """

    first: nn.Conv2d
    core: nn.Conv2d
    last: nn.Conv2d

    def __init__(self, conv: nn.Conv2d, ranks: Sequence[int | None]) -> None:
        like: dict[str, Any] = dict(device=conv.weight.device, dtype=conv.weight.dtype)
        form: dict[str, Any] = {
            name: getattr(conv, name) for name in ('kernel_size', 'stride', 'padding', 'dilation', 'padding_mode')
        }
        inner, outer = ranks
        bias = conv.bias is not None
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if inner is not None:
            layers['first'] = nn.Conv2d(conv.in_channels, inner, 1, bias=False, **like)
        layers['core'] = nn.Conv2d(
            inner or conv.in_channels,
            outer or conv.out_channels,
            bias=bias and outer is None,
            **form,
            **like,
        )
        if outer is not None:
            layers['last'] = nn.Conv2d(outer, conv.out_channels, 1, bias=bias, **like)
        super().__init__(layers)
        self.in_channels = conv.in_channels
        self.out_channels = conv.out_channels
        self.ranks = (inner, outer)

    @torch.no_grad()
    def fill(self, core: Tensor, inner: Tensor | None, outer: Tensor | None, bias: Tensor | None) -> None:
        """Take the factors of a weight ``(out, in, k, k)``.

        Args:
            core: ``(R_out, R_in, k, k)``.
            inner: ``(in, R_in)``, None where that side is not factored.
            outer: ``(out, R_out)``, None where that side is not factored.
            bias: ``(out,)`` or None.
        """
        self.core.weight.copy_(core)
        if inner is not None:
            self.first.weight.copy_(inner.t()[:, :, None, None])
        if outer is not None:
            self.last.weight.copy_(outer[:, :, None, None])
        end = (self.core if outer is None else self.last).bias
        if end is not None and bias is not None:
            end.copy_(bias)


class FactoredLinear(nn.Sequential):
    """A fully-connected layer as two, through fewer channels.

    Args:
        linear: The layer that it stands for; its weights are not taken.
        rank: The channels between the two.
    """

    first: nn.Linear
    last: nn.Linear

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        like: dict[str, Any] = dict(device=linear.weight.device, dtype=linear.weight.dtype)
        first = nn.Linear(linear.in_features, rank, bias=False, **like)
        last = nn.Linear(rank, linear.out_features, bias=linear.bias is not None, **like)
        super().__init__(OrderedDict(first=first, last=last))
        self.in_features = linear.in_features
        self.out_features = linear.out_features

    @torch.no_grad()
    def fill(self, first: Tensor, last: Tensor, bias: Tensor | None) -> None:
        """Take the factors ``(R, in)`` and ``(out, R)`` of a weight, and its bias."""
        self.first.weight.copy_(first)
        self.last.weight.copy_(last)
        if self.last.bias is not None and bias is not None:
            self.last.bias.copy_(bias)


def obstacle(layer: nn.Module) -> str | None:
    """Why a layer cannot be factored.

    Args:
        layer: Any module.

    Returns:
        A few words, empty where it can be; None for what is neither a convolution nor a fully-connected layer.
    """
    if type(layer) in (nn.Linear, PatientLinear):
        return ''
    if isinstance(layer, nn.Conv2d):
        if type(layer) not in (nn.Conv2d, PatientConv2d):
            return f'a {type(layer).__name__}'
        if layer.groups > 1:
            return 'depthwise' if layer.groups == layer.in_channels else 'grouped'
        return '1 x 1' if layer.kernel_size == (1, 1) else ''
    # A deformable convolution of mmcv is no Conv2d of torch.
    return f'a {type(layer).__name__}' if 'Conv2d' in type(layer).__name__ and hasattr(layer, 'weight') else None


def factor_layers(module: nn.Module, ranks: Mapping[str, Ranks]) -> None:
    """Replace layers of a module by factored ones, whose weights are as torch begins them.

    Args:
        module: Changed in place.
        ranks: By the path of the layer.

    Raises:
        DistillError: If there is no such layer, it cannot be factored, or it has fewer channels than a rank.
    """
    for path, wanted in ranks.items():
        parent, _, name = path.rpartition('.')
        try:
            owner = module.get_submodule(parent)
            layer = getattr(owner, name)
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Module):
            options = [key for key, item in module.named_modules() if obstacle(item) == '']
            raise DistillError(f'{type(module).__name__} has no layer "{path}" to factor: {nearest(path, options)}')
        product = _product(layer, wanted, f'"{path}" of {type(module).__name__}')
        # A frozen stage stays frozen.
        product.requires_grad_(layer.weight.requires_grad)  # type: ignore[arg-type]
        product.train(layer.training)
        setattr(owner, name, product)


@MODELS.register_module(name='Factored')
def factored(of: str, ranks: Mapping[str, Ranks], **settings: Any) -> nn.Module:
    """Build a module with some of its layers factored; it is one of its own class.

    Args:
        of: The ``type`` of the module.
        ranks: By the path of each layer in the module, as :func:`factor_layers` takes them.
        settings: All other arguments of the module.

    Returns:
        The module.

    Raises:
        DistillError: As :func:`factor_layers` does.
    """
    module = MODELS.build(dict(settings, type=of))
    factor_layers(module, ranks)
    return module


def _product(layer: nn.Module, ranks: Ranks, name: str) -> nn.Module:
    problem = obstacle(layer)
    if problem != '':
        raise DistillError(
            f'{name} cannot be factored, since it is {problem or "a " + type(layer).__name__}; leave it out of ranks.'
        )
    if isinstance(layer, nn.Linear):
        sides: list[tuple[str, int, Any]] = [('features', min(layer.in_features, layer.out_features), ranks)]
    else:
        assert isinstance(layer, nn.Conv2d)
        if isinstance(ranks, (int, str)) or len(ranks) != 2 or ranks[0] is ranks[1] is None:
            raise DistillError(
                f'The ranks of {name} are {ranks!r}, but a convolution takes two: the channels of its input and of its '
                'output, such as (16, 32); None leaves a side as it is.'
            )
        sides = [('input channels', layer.in_channels, ranks[0]), ('output channels', layer.out_channels, ranks[1])]
    for what, most, rank in sides:
        if rank is None and isinstance(layer, nn.Conv2d):
            continue
        if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= most:
            raise DistillError(
                f'{rank!r} is no rank for {name}, which has {most} {what}; give a whole number from 1 to {most}.'
            )
    if isinstance(layer, nn.Linear):
        assert isinstance(ranks, int)
        return FactoredLinear(layer, ranks)
    assert isinstance(layer, nn.Conv2d) and not isinstance(ranks, int)
    return TuckerConv2d(layer, ranks)
