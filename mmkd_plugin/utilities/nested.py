"""Tensors in nested lists, tuples and dicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

from torch import Tensor


def tensors_of(item: Any) -> Iterator[Tensor]:
    """All tensors of a nested argument, in order."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, (list, tuple, dict)):
        for each in item.values() if isinstance(item, dict) else item:
            yield from tensors_of(each)


def map_tensors(function: Callable[[Tensor], Any], item: Any) -> Any:
    """A nested argument with a function applied to all of its tensors; what is no tensor stays as it is."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, dict):
        return {key: map_tensors(function, each) for key, each in item.items()}
    if type(item) in (list, tuple):
        return type(item)(map_tensors(function, each) for each in item)
    return item
