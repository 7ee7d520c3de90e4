"""What the ranks of a distributed run must agree on."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average a normaliser over all ranks, so that the loss does not depend on how images are spread over them.

    Gradients are averaged over ranks afterwards, so each rank must divide by the mean of all ranks' normalisers, not by
    its own. All ranks must call this together.

    Args:
        value: Any shape, floating point, without gradient.

    Returns:
        The mean; ``value`` itself where nothing is distributed.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()
