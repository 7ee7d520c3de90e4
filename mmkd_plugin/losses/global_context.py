"""Global context block of GCNet (Cao et al., 2019), with which FGD compares relations between pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GlobalContext(nn.Module):
    """Add to every position one vector made of the whole map.

    The positions are pooled with a learned softmax attention, and the pooled vector passes a bottleneck of half the
    channels. The bottleneck's last convolution starts at 0, so the block starts as the identity.

    Args:
        channels: Channels of the feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.attention = nn.Conv2d(channels, 1, 1)
        last = nn.Conv2d(hidden, channels, 1)
        self.transform = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), last)
        nn.init.kaiming_normal_(self.attention.weight, mode='fan_in', nonlinearity='relu')
        for parameter in (self.attention.get_parameter('bias'), *last.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, feature: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        weight = self.attention(feature).flatten(2).softmax(-1)
        context = torch.einsum('ncp,nip->nc', feature.flatten(2), weight)
        return feature + self.transform(context[..., None, None])
