"""Activation checkpointing that a recorder and a second gradient can live with."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch.utils.checkpoint

_KEY = 'use_reentrant'


@contextlib.contextmanager
def non_reentrant_checkpoints() -> Iterator[None]:
    """Let whoever asks torch to recompute activations, and does not say how, get the non-reentrant way meanwhile.

    OpenMMLab's ``with_cp=True`` and MMEngine's ``activation_checkpointing`` leave the choice to torch, which still
    takes the reentrant way. It runs the forward pass without gradient, so that what is recorded inside has none, and it
    refuses the gradients that are taken in the middle of a step. Whoever says ``use_reentrant=True`` gets that.
    """
    defaults = inspect.unwrap(torch.utils.checkpoint.checkpoint).__kwdefaults__ or {}
    if _KEY not in defaults:
        yield
        return
    before, defaults[_KEY] = defaults[_KEY], False
    try:
        yield
    finally:
        defaults[_KEY] = before
