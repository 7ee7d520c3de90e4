"""Losses as code that torch compiles."""

from __future__ import annotations

import functools
import importlib
import types
from typing import Any, Callable

import torch

from mmkd_plugin.errors import DistillError

SETTING = 'distill.compile_losses'


def require_compiler() -> None:
    """Refuse to compile with a torch that cannot.

    Raises:
        DistillError: Naming the version.
    """
    if not hasattr(torch, 'compile'):
        raise DistillError(
            f'"{SETTING}" needs torch.compile, which came with torch 2.0, but this is torch {torch.__version__}; leave '
            'the key out, or install a newer torch.'
        )


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that torch compiles when it is first called, and again where it sees other shapes.

    Args:
        function: Takes its arguments by name.

    Returns:
        The function with the same results within rounding.

    Raises:
        DistillError: If this torch cannot compile at all; when it is called, if it could not compile this.
    """
    require_compiler()
    _allow_several_gradients()

    def call(**arguments: Any) -> Any:
        return function(**arguments)

    # torch counts the versions of a function by its code, and gives up behind a few; levels must not share them.
    own = types.FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
    fast = torch.compile(own)

    @functools.wraps(function)
    def run(**arguments: Any) -> Any:
        try:
            return fast(**arguments)
        except Exception as error:
            if not type(error).__module__.startswith(('torch._dynamo', 'torch._inductor')):
                raise
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise DistillError(
                f'torch could not compile the loss ({reason}); leave out "{SETTING}", or install what torch.compile '
                'needs: a C++ compiler such as g++, and on a GPU Triton.'
            ) from error

    return run


def _allow_several_gradients() -> None:
    """Let what is compiled keep its graph for a second gradient, which the self-check takes.

    Torch reads this switch when it compiles and again at each gradient, so that it stays set for the process. What is
    assigned to it counts in this thread alone in newer versions, but gradients on a GPU are taken in others.
    """
    try:
        config: Any = importlib.import_module('torch._functorch.config')
    except ImportError:
        return
    if hasattr(config, 'donated_buffer'):
        config.donated_buffer = False
        entry: Any = getattr(config, '_config', {}).get('donated_buffer')
        if hasattr(entry, 'default'):
            entry.default = False
