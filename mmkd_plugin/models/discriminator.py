"""The discriminator of holistic distillation, Liu et al., CVPR 2019 and TPAMI 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.precision import full_precision
from mmkd_plugin.utilities.resize import resize_map

_LAST_KERNEL = 4

WIDTHS = (64, 128, 256, 512)
"""Channels of the authors' stages, for maps of 64 cells a side and more."""


class SpectralConv2d(nn.Conv2d):
    """A convolution divided by its largest singular value, which is estimated by power iteration.

    Every pass does one step of the iteration, in evaluation too, and it starts from random vectors, as in the released
    code; the framework's own parametrization differs in both.
    """

    u: Tensor
    v: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer('u', _unit(torch.randn(rows)))
        self.register_buffer('v', _unit(torch.randn(columns)))

    def forward(self, feature: Tensor) -> Tensor:
        """Convolve ``(N, in_channels, H, W)``."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            self.v.copy_(_unit(matrix.t() @ self.u))
            self.u.copy_(_unit(matrix @ self.v))
        return self._conv_forward(feature, self.weight / _SingularValue.apply(matrix, self.u, self.v), self.bias)


class _SingularValue(torch.autograd.Function):
    """The singular value that belongs to two vectors, ``u W v``.

    Where several passes precede one backward pass, its gradient is that of the newest vectors, which are the closest to
    singular ones; the released code does the same.
    """

    @staticmethod
    def forward(context: Any, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
        context.vectors = u, v
        return u @ (matrix @ v)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * torch.outer(*context.vectors), None, None


class SelfAttention(nn.Module):
    """Self-attention over the positions of a map (SAGAN, Zhang et al., 2019); it starts as the identity.

    Args:
        channels: Channels of the feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 8, 1)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, feature: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        energy = self.query(feature).flatten(2).transpose(1, 2) @ self.key(feature).flatten(2)
        attended = self.value(feature).flatten(2) @ energy.softmax(-1).transpose(1, 2)
        return feature + self.gamma * attended.view_as(feature)


@MODELS.register_module()
class Discriminator(nn.Module):
    """Score how much a class map looks like the teacher's.

    Stages of a spectrally normalised 4 x 4 convolution of stride 2 and a leaky ReLU, self-attention behind the last
    two, and a 4 x 4 convolution to one score. With four stages a map of 64 or 65 cells a side gives one score; a larger
    one gives several, which are averaged, and a smaller one is enlarged first.

    Args:
        num_classes: Channels of the logits.
        conditional: Whether it judges the image together with the class probabilities (the paper), or the logits alone
            behind a batch normalisation (the released code).
        widths: Channels of the stages. Each stage less halves the smallest map, which has 4 cells a side times 2 for
            each stage.
        image_channels: Channels of the image, for a conditional discriminator.
    """

    def __init__(
        self,
        num_classes: int,
        conditional: bool = True,
        widths: Sequence[int] = WIDTHS,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conditional = conditional
        self.norm = nn.Identity() if conditional else nn.BatchNorm2d(num_classes)
        inputs = (num_classes + image_channels if conditional else num_classes, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                SpectralConv2d(before, after, 4, stride=2, padding=1),
                nn.LeakyReLU(0.1),
                SelfAttention(after) if index >= len(widths) - 2 else nn.Identity(),
            )
            for index, (before, after) in enumerate(zip(inputs, widths))
        )
        self.last = nn.Conv2d(widths[-1], 1, _LAST_KERNEL)

    @property
    def smallest(self) -> int:
        """The side in cells to which a smaller class map is enlarged."""
        return _LAST_KERNEL * 2 ** len(self.stages)

    def forward(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Score each class map.

        Args:
            logits: ``(N, num_classes, H, W)``.
            image: The image they belong to, ``(N, image_channels, H', W')``, resized to the class map; read by a
                conditional discriminator alone.

        Returns:
            ``(N,)``.

        Raises:
            ValueError: If the image is missing, or the class map is of other classes.
        """
        return self.score(self.joint(logits, image))

    @full_precision
    def joint(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """What is judged: image and class probabilities, ``(N, image_channels + num_classes, H, W)``, or the logits."""
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f'The discriminator was built for {self.num_classes} classes, but the logits have {logits.shape[1]}; '
                'set num_classes to the number of both models.'
            )
        if not self.conditional:
            return logits
        if image is None:
            raise ValueError('A conditional discriminator needs the image; record it, or set conditional=False.')
        return torch.cat([self.seen(image, logits), logits.softmax(1)], 1)

    def seen(self, image: Tensor, logits: Tensor) -> Tensor:
        """An image in the size of a class map; one that has it already is left alone."""
        size = (logits.shape[2], logits.shape[3])
        if tuple(image.shape[2:]) == size:
            return image
        return interpolate(image, size=size, mode='bilinear', align_corners=True)

    @full_precision
    def score(self, joint: Tensor) -> Tensor:
        """Score what :meth:`joint` gives, ``(N,)``."""
        size = (max(joint.shape[2], self.smallest), max(joint.shape[3], self.smallest))
        joint = resize_map(joint, size, align_corners=False)
        feature = self.norm(joint)
        for stage in self.stages:
            feature = stage(feature)
        return self.last(feature).mean((1, 2, 3))


def widths_for(side: float) -> tuple[int, ...]:
    """The authors' stages without those for which a class map would be enlarged by a factor of two or more.

    Args:
        side: The shorter side of the class map in cells.

    Returns:
        Channels of the stages, at least one.

    Example:
        >>> [len(widths_for(side)) for side in (97, 33, 32, 16, 5)]
        [4, 4, 3, 2, 1]
    """
    count = 1
    while count < len(WIDTHS) and side > _LAST_KERNEL * 2**count:
        count += 1
    return WIDTHS[:count]


def _unit(vector: Tensor) -> Tensor:
    """A vector of length 1."""
    return vector / (torch.linalg.vector_norm(vector) + 1e-12)
