"""The shuffled grouped convolutions of a light detector's backbone, as FGI's authors use them on KITTI."""

from __future__ import annotations

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS

GROUPS = 3
CHANNELS = (240, 480, 960)
"""Widths of the three stages at full width, those of ShuffleNet with three groups."""
BLOCKS = (4, 6, 4)
LAST = 768
"""Width of the map that is returned, at full width."""
NORM = dict(type='BN')


class ShuffleUnit(nn.Module):
    """A unit of ShuffleNet: a grouped 1x1 convolution, a shuffle, a 3x3 convolution per channel, another grouped 1x1.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        first_groups: Groups of the first convolution; those of the last one are ``GROUPS``, or 1 where its width does
            not divide.
        stride: With 2 the input, pooled on average, is put beside the new channels, so that only the rest is computed.
        shortcut: Whether the input is added, or put beside; with False the unit is a plain stack.
        norm_cfg: Normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        first_groups: int = GROUPS,
        stride: int = 1,
        shortcut: bool = True,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        middle = out_channels // 4
        computed = out_channels - in_channels if stride == 2 else out_channels
        self.stride = stride
        self.shortcut = shortcut
        norm = norm_cfg or NORM
        self.reduce = ConvModule(in_channels, middle, 1, groups=first_groups, norm_cfg=norm)
        self.depthwise = ConvModule(
            middle, middle, 3, stride=stride, padding=1, groups=middle, norm_cfg=norm, act_cfg=None
        )
        groups = 1 if computed % GROUPS else GROUPS
        self.expand = ConvModule(middle, computed, 1, groups=groups, norm_cfg=norm, act_cfg=None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        outputs = self.expand(self.depthwise(shuffled(self.reduce(inputs), GROUPS)))
        if self.stride == 2:
            pooled = nn.functional.avg_pool2d(inputs, 3, 2, padding=1, count_include_pad=False)
            return torch.cat([pooled, outputs.relu()], 1)
        return (inputs + outputs if self.shortcut else outputs).relu()


@MODELS.register_module()
class LiteShuffleNet(BaseModule):
    """ShuffleNet with three groups as the backbone of a light detector with a single map, of stride 16.

    The first convolution has stride 1; two units without a stride follow the three stages, the last one without a
    shortcut. So Wang et al., CVPR 2019, build their detector on KITTI, with widths of 1, 0.5 and 0.25.

    Args:
        width: Factor on all widths but the first convolution's; the map has ``768 * width`` channels.
        stem_channels: Channels of the first convolution; the authors' teacher has 16, their students 24.
        norm_cfg: Normalisation.
        init_cfg: MMEngine initialisation.

    Raises:
        DistillError: If the widths do not divide into groups.
    """

    def __init__(
        self, width: float = 1.0, stem_channels: int = 24, norm_cfg: dict | None = None, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        widths = [int(channels * width) for channels in (*CHANNELS, LAST)]
        if any(channels < 4 * GROUPS or channels % (4 * GROUPS) for channels in widths) or stem_channels >= widths[0]:
            raise DistillError(
                f'LiteShuffleNet of width {width:g} has {widths} channels behind a first convolution of '
                f'{stem_channels}; choose a width of 1, 0.5, 0.25 or 0.2, and fewer channels for the first convolution.'
            )
        self.stem = nn.Sequential(
            ConvModule(3, stem_channels, 3, padding=1, norm_cfg=norm_cfg or NORM),
            nn.MaxPool2d(3, 2, padding=1),
        )
        channels = stem_channels
        for index, (count, out_channels) in enumerate(zip(BLOCKS, widths)):
            units = []
            for block in range(count):
                # Few channels come in, which are not worth splitting.
                groups = 1 if index == block == 0 else GROUPS
                units.append(ShuffleUnit(channels, out_channels, groups, 1 if block else 2, norm_cfg=norm_cfg))
                channels = out_channels
            setattr(self, f'stage{index + 1}', nn.Sequential(*units))
        self.added = nn.Sequential(
            ShuffleUnit(channels, channels, norm_cfg=norm_cfg),
            ShuffleUnit(channels, widths[-1], shortcut=False, norm_cfg=norm_cfg),
        )

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Map ``(N, 3, H, W)`` to one ``(N, 768 * width, H / 16, W / 16)``, without negative values."""
        outputs = self.stem(images)
        for index in range(len(BLOCKS)):
            outputs = getattr(self, f'stage{index + 1}')(outputs)
        return (self.added(outputs),)


def shuffled(inputs: Tensor, groups: int) -> Tensor:
    """Deal the channels of ``(N, C, H, W)`` out to the groups in turn.

    Example:
        >>> shuffled(torch.arange(6).view(1, 6, 1, 1), 3).flatten().tolist()
        [0, 2, 4, 1, 3, 5]
    """
    batch, channels, height, width = inputs.shape
    return inputs.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(inputs.shape)
