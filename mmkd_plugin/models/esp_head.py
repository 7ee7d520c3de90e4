"""The decoder of ESPNet, Mehta et al., ECCV 2018."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmkd_plugin.models.espnet import SpatialPyramid
from mmkd_plugin.models.layers import ConvNormAct, NormAct
from mmkd_plugin.registry import MODELS


@MODELS.register_module()
class ESPHead(BaseDecodeHead):
    """Doubles the size three times by transposed convolutions that are as wide as there are classes.

    The logits of stride 8 meet those of stride 4 in an ESP module, and the features of stride 2 in a convolution; the
    last transposed convolution, the classifier, gives the size of the image.

    Args:
        in_channels: Channels of the three levels of :class:`~mmkd_plugin.models.espnet.ESPNet`.
        num_classes: Number of classes.
        in_index: The levels, finest first.
        norm_cfg: Normalisation, the authors' by default.
        **kwargs: Those of ``BaseDecodeHead``; ``channels`` and ``dropout_ratio`` have no meaning here.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (19, 131, 256),
        num_classes: int = 19,
        in_index: Sequence[int] = (0, 1, 2),
        norm_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = {**kwargs, 'channels': num_classes, 'dropout_ratio': 0}
        super().__init__(
            in_channels=list(in_channels),
            in_index=list(in_index),
            num_classes=num_classes,
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            **kwargs,
        )
        width = self.out_channels
        fine, middle, coarse = self.in_channels
        self.project3 = nn.Conv2d(coarse, width, 1, bias=False)
        self.norm3 = NormAct(width, norm_cfg)
        self.double3 = _double(width)
        self.project2 = nn.Conv2d(middle, width, 1, bias=False)
        self.fuse2 = nn.Sequential(
            NormAct(2 * width, norm_cfg), SpatialPyramid(2 * width, width, residual=False, norm_cfg=norm_cfg)
        )
        self.double2 = nn.Sequential(_double(width), NormAct(width, norm_cfg))
        self.fuse1 = ConvNormAct(fine + width, width, norm_cfg=norm_cfg)
        self.conv_seg = _double(width)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Logits ``(N, classes, H, W)`` from levels of H / 2, H / 4 and H / 8 rows; odd sizes are rounded up."""
        fine, middle, coarse = self._transform_inputs(inputs)
        logits = self.double3(self.norm3(self.project3(coarse)))
        logits = self.double2(self.fuse2(_beside(self.project2(middle), logits)))
        return self.cls_seg(self.fuse1(_beside(fine, logits)))


def _beside(feature: Tensor, doubled: Tensor) -> Tensor:
    """Concatenate; where the feature has an odd size, what was doubled has a row or column too many."""
    return torch.cat([feature, doubled[..., : feature.shape[-2], : feature.shape[-1]]], 1)


def _double(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
