"""What the ranks of a distributed run must agree on."""

from __future__ import annotations

from mmengine.dist import all_reduce
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average a normaliser over all ranks, so that the loss does not depend on how images are spread over them.

    Gradients are averaged over ranks afterwards, so each rank must divide by the mean of all ranks' normalisers, not by
    its own. All ranks must call this together.

    Args:
        value: Any shape, floating point, without gradient.

    Returns:
        The mean, in a tensor of its own.
    """
    mean = value.clone()
    all_reduce(mean, op='mean')
    return mean
