"""Averages whose normaliser is known on the device alone."""

from __future__ import annotations

import torch
from torch import Tensor


def average(losses: Tensor, weight: Tensor | None, count: Tensor | float) -> Tensor:
    """Weighted sum, divided by a count.

    Args:
        losses: Any shape.
        weight: The same shape, 0 where a loss does not count; None for 1 everywhere.
        count: What to divide by; a count of 0 is taken as 1.

    Returns:
        Scalar.
    """
    total = (losses if weight is None else losses * weight).sum()
    if isinstance(count, Tensor):
        return total / torch.where(count > 0, count, 1)
    return total / (count if count > 0 else 1)
