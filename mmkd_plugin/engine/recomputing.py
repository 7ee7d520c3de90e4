"""Modules whose activations are recomputed in the backward pass, as ``activation_checkpointing`` names them."""

from __future__ import annotations

import functools
from typing import Any, Callable

from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_plugin.errors import DistillError, nearest


def require_modules(student: nn.Module, names: Any) -> list[str]:
    """The modules that a config wants recomputed.

    Args:
        student: The student.
        names: One path or several, as in ``student.named_modules()``; None for none.

    Returns:
        The paths.

    Raises:
        DistillError: If the student has no such module.
    """
    paths = [names] if isinstance(names, str) else list(names or [])
    modules = dict(student.named_modules())
    for path in paths:
        if path not in modules:
            raise DistillError(
                f'activation_checkpointing names "{path}", which is no module of the student: {nearest(path, modules)}'
            )
    return paths


def recompute_activations(student: nn.Module, names: Any) -> None:
    """Recompute the activations of some modules, without the reentrant way.

    Args:
        student: Before it is wrapped.
        names: As for :func:`require_modules`.
    """
    modules = dict(student.named_modules())
    for path in require_modules(student, names):
        modules[path].forward = _recomputed(modules[path].forward)


def _recomputed(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return wrapper
