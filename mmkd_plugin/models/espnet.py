"""ESPNet, an efficient spatial pyramid of dilated convolutions, Mehta et al., ECCV 2018."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mmkd_plugin.models.layers import ConvNormAct, NormAct
from mmkd_plugin.registry import MODELS

DILATIONS = (1, 2, 4, 8, 16)
"""Of the parallel branches of a pyramid."""
WIDTHS = (16, 64, 128)
"""Channels of the three levels."""


class SpatialPyramid(nn.Module):
    """The ESP module: reduce, split, transform, merge.

    A convolution reduces the width to one of the branches; each branch is a 3x3 convolution of another dilation. Before
    they are concatenated, each branch is added to those of smaller dilation (hierarchical feature fusion), which
    removes the grid that dilated convolutions leave. The first branch has the channels that do not divide evenly, and
    takes no part in the sums.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; where they are fewer than five, so are the branches.
        stride: 2 reduces with a 3x3 convolution that halves the size; 1 with a 1x1 convolution.
        residual: Whether the input is added, which needs equal widths and stride 1.
        norm_cfg: Normalisation behind the merge.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        residual: bool = True,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        dilations = DILATIONS[:out_channels]
        branch = out_channels // len(dilations)
        first = out_channels - branch * (len(dilations) - 1)
        size = 3 if stride == 2 else 1
        self.residual = residual
        self.reduce = nn.Conv2d(in_channels, branch, size, stride, size // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(branch, width, 3, padding=dilation, dilation=dilation, bias=False)
            for dilation, width in zip(dilations, (first, *[branch] * (len(dilations) - 1)))
        )
        self.merge = NormAct(out_channels, norm_cfg)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        reduced = self.reduce(inputs)
        first, *rest = [branch(reduced) for branch in self.branches]
        merged = [first]
        total = None
        for feature in rest:
            total = feature if total is None else total + feature
            merged.append(total)
        output = torch.cat(merged, 1)
        return self.merge(inputs + output if self.residual else output)


@MODELS.register_module()
class ESPNet(BaseModule):
    """The encoder of ESPNet: three levels at strides 2, 4 and 8, each with the image beside its features.

    With :class:`~mmkd_plugin.models.esp_head.ESPHead` it is the paper's ESPNet; with a single 1x1 convolution on its
    last level (``FCNHead`` with ``num_convs=0``) it is ESPNet-C.

    Args:
        depths: How often the ESP module is repeated at the strides 4 and 8: alpha 2 and alpha 3 of the paper.
        in_channels: Channels of the image.
        out_indices: Levels that are returned; their widths are ``in_channels`` more than 16, ``in_channels`` more than
            128, and 256.
        norm_cfg: Normalisation; batch norm with the authors' eps of 1e-3 by default.
        init_cfg: MMEngine initialisation.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 8),
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2),
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        init_cfg = init_cfg or [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', layer=['_BatchNorm', 'GroupNorm'], val=1),
        ]
        super().__init__(init_cfg)
        self.out_indices = tuple(out_indices)
        first, second, third = WIDTHS
        self.stem = ConvNormAct(in_channels, first, stride=2, norm_cfg=norm_cfg)
        self.mix1 = NormAct(first + in_channels, norm_cfg)
        self.down2 = SpatialPyramid(first + in_channels, second, 2, residual=False, norm_cfg=norm_cfg)
        self.level2 = _repeat(second, depths[0], norm_cfg)
        self.mix2 = NormAct(2 * second + in_channels, norm_cfg)
        self.down3 = SpatialPyramid(2 * second + in_channels, third, 2, residual=False, norm_cfg=norm_cfg)
        self.level3 = _repeat(third, depths[1], norm_cfg)
        self.mix3 = NormAct(2 * third, norm_cfg)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The levels of ``out_indices`` for an image ``(N, C, H, W)``."""
        half = _halve(image)
        level1 = self.mix1(torch.cat([self.stem(image), half], 1))
        start = self.down2(level1)
        level2 = self.mix2(torch.cat([self.level2(start), start, _halve(half)], 1))
        start = self.down3(level2)
        level3 = self.mix3(torch.cat([start, self.level3(start)], 1))
        levels = (level1, level2, level3)
        return tuple(levels[index] for index in self.out_indices)


def _repeat(channels: int, depth: int, norm_cfg: dict | None) -> nn.Sequential:
    return nn.Sequential(*(SpatialPyramid(channels, channels, norm_cfg=norm_cfg) for _ in range(depth)))


def _halve(image: Tensor) -> Tensor:
    return avg_pool2d(image, 3, stride=2, padding=1)
