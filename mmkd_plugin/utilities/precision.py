"""Losses are computed in at least single precision, whatever the models run in."""

from __future__ import annotations

import functools
from typing import Any, Callable, TypeVar, cast

import torch
from torch import Tensor

from mmkd_plugin.utilities.nested import map_tensors, tensors_of

Function = TypeVar('Function', bound=Callable[..., Any])

HALF = (torch.float16, torch.bfloat16)


def full_precision(function: Function) -> Function:
    """Let a function see float32 in place of half precision, with autocast off.

    Sums over a feature map overflow float16 and lose all digits in bfloat16. Tensors in lists and tuples are converted
    too; float64 stays. Gradients come back in the caller's precision.

    Args:
        function: Takes tensors, or lists and tuples of them, among its arguments.

    Returns:
        The function with its arguments converted.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = map_tensors(_full, args), map_tensors(_full, kwargs)
        first = next(tensors_of([args, kwargs]), None)
        with torch.autocast('cpu' if first is None else first.device.type, enabled=False):
            return function(*args, **kwargs)

    return cast(Function, wrapped)


def _full(tensor: Tensor) -> Tensor:
    """At least single precision."""
    return tensor.float() if tensor.dtype in HALF else tensor
