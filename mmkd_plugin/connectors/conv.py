"""Convolution that gives a student feature the teacher's number of channels."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd_plugin.compat.razor import BaseConnector
from mmkd_plugin.registry import MODELS


@MODELS.register_module()
class ConvConnector(BaseConnector):
    """A convolution with bias that keeps the spatial size, in torch's default initialisation.

    Args:
        in_channels: Channels of the student feature.
        out_channels: Channels of the teacher feature.
        kernel_size: 1 (FGD, Chen et al.) or 3 (FGI); odd.
        relu: Whether a ReLU follows, for teacher maps that are taken behind one.
        init_cfg: MMEngine initialisation of the weights, in place of torch's default.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        relu: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward_train(self, feature: Tensor) -> Tensor:
        """Adapt ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``."""
        return self.relu(self.conv(feature))
