"""Layers of ESPNet that its encoder and its decoder share."""

from __future__ import annotations

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

NORM = dict(type='BN', eps=1e-3)
"""The authors' normalisation."""


class NormAct(nn.Module):
    """Normalisation and a PReLU with a slope per channel.

    Args:
        channels: Channels.
        norm_cfg: Normalisation, the authors' by default.
    """

    def __init__(self, channels: int, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.norm = build_norm_layer({**NORM, **(norm_cfg or {})}, channels)[1]
        self.act = nn.PReLU(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Keep the shape."""
        return self.act(self.norm(inputs))


class ConvNormAct(nn.Sequential):
    """A 3x3 convolution, normalisation and PReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the convolution.
        norm_cfg: Normalisation, the authors' by default.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, norm_cfg: dict | None = None) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), NormAct(out_channels, norm_cfg)
        )
