"""What several losses of one step derive from the same tensors is computed once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Callable, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar('Function', bound=Callable[..., Any])

_results: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar('results of this step', default=None)


@contextlib.contextmanager
def one_step() -> Iterator[None]:
    """A block in which :func:`shared` functions give one result for the same arguments; it is forgotten behind it."""
    token = _results.set({})
    try:
        yield
    finally:
        _results.reset(token)


def shared(function: Function) -> Function:
    """Let callers within one :func:`one_step` share a function's results, which none of them may change.

    Arguments are the same where their tensors are the same objects, unchanged since, and everything else is equal. So
    another batch, another precision or a converted copy never meets the result of the first, and outside of a step
    nothing is kept.

    Args:
        function: Depends on nothing but its arguments: tensors, lists and tuples of them, and what can be hashed.

    Returns:
        The function.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        results = None if is_compiling() else _results.get()
        key = None if results is None else _key((function.__qualname__, args, tuple(sorted(kwargs.items()))))
        if results is None or key is None:
            return function(*args, **kwargs)
        if key not in results:
            # With the arguments, whose identity is part of the key.
            results[key] = function(*args, **kwargs), (args, kwargs)
        return results[key][0]

    return cast(Function, wrapped)


def is_compiling() -> bool:
    """Whether torch is tracing this code in order to compile it; never where torch cannot."""
    compiler: Any = getattr(torch, 'compiler', None)
    return hasattr(compiler, 'is_compiling') and bool(compiler.is_compiling())


def _key(item: Any) -> Any:
    """What equals that of another argument where the two are the same; None where no such thing exists."""
    if isinstance(item, Tensor):
        return None if item.is_inference() else (id(item), item._version)
    if isinstance(item, (list, tuple)):
        keys = tuple(_key(each) for each in item)
        return None if None in keys else keys
    # A type of number is part of it: 1, 1.0 and True are equal.
    return type(item), item
