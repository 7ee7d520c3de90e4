"""FGD's attention of several models on one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from mmkd_plugin.functional.fgd import channel_attention, spatial_attention
from mmkd_plugin.views.drawing import heat_maps, heat_size

_CURVES = 1.9
"""Height of the curves in inches."""


@dataclasses.dataclass(frozen=True)
class Attention:
    """The attention of one model on one image, level by level.

    Attributes:
        spatial: ``(H, W)`` of each level; its mean is 1.
        channel: ``(C,)`` of each level; its mean is 1.
    """

    spatial: list[Tensor]
    channel: list[Tensor]


def attention_of(levels: Sequence[Tensor], temperature: float, index: int = 0) -> Attention:
    """The attention of one model.

    Args:
        levels: Its features, ``(N, C, H, W)`` each.
        temperature: Of both attentions.
        index: Of the image in the batch.
    """
    images = [level[index : index + 1] for level in levels]
    return Attention(
        [spatial_attention(image, temperature)[0].cpu() for image in images],
        [channel_attention(image, temperature)[0].cpu() for image in images],
    )


def attention_figure(image: np.ndarray, models: Mapping[str, Attention]) -> Figure:
    """Spatial attention over the image, a row for each model, and curves of the channels' attention.

    Args:
        image: As the network sees it, ``(H, W, 3)`` RGB.
        models: By the name shown; the channels are in the order of the first one's attention, where as many.

    Returns:
        The figure.
    """
    lead, first = next(iter(models.items()))
    width, height = heat_size(image, len(models), len(first.spatial))
    figure = Figure(figsize=(width, height + _CURVES), layout='constrained')
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, _CURVES))
    above, below = parts
    maps = {name: attention.spatial for name, attention in models.items()}
    heat_maps(above, image, maps, 'spatial attention, mean 1', log=True)
    axes = below.subplots(1, len(first.channel), squeeze=False, sharey=True)[0]
    for level, (axis, leading) in enumerate(zip(axes, first.channel)):
        order = leading.argsort(descending=True)
        for name, attention in models.items():
            values = attention.channel[level]
            # Where a student has other channels than the teacher, none of them is the same.
            values = values[order] if len(values) == len(order) else values.sort(descending=True).values
            axis.plot(values.numpy(), label=name, lw=1.8 if attention is first else 1.0)
        axis.grid(alpha=0.3)
    alike = len({len(values) for attention in models.values() for values in attention.channel}) == 1
    below.supxlabel(
        f"channel, in the {lead}'s order" + ('' if alike else ' where the number is the same'), size='medium'
    )
    axes[0].set_ylabel('channel attention')
    axes[-1].legend(fontsize=8)
    return figure
