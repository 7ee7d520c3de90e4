"""Losses are computed in at least single precision, whatever the models run in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

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
        args, kwargs = _convert(args), {name: _convert(value) for name, value in kwargs.items()}
        device = next(_tensors((*args, *kwargs.values()))).device
        with torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return cast(Function, wrapped)


def _convert(item: Any) -> Any:
    """Half tensors, also nested ones, as float32."""
    if isinstance(item, Tensor):
        return item.float() if item.dtype in HALF else item
    if type(item) in (list, tuple):
        return type(item)(_convert(each) for each in item)
    return item


def _tensors(item: Any) -> Iterator[Tensor]:
    """All tensors of a nested argument, in order."""
    if isinstance(item, Tensor):
        yield item
    elif type(item) in (list, tuple):
        for each in item:
            yield from _tensors(each)
