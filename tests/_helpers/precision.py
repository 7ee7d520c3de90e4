"""Check that a function computes in single precision, whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


def assert_full_precision(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Compare a function of float16 tensors, within autocast and without, with the same numbers in float32.

    Args:
        function: Gives a tensor, or a list or tuple of tensors and None.
        *arguments: Floating-point tensors and lists of them are made float16; the rest is passed on.
        **options: Passed on.
    """
    half = [_converted(item, torch.float16) for item in arguments]
    expected = function(*[_converted(item, torch.float32) for item in half], **options)
    for enabled in (True, False):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            found = function(*half, **options)
        pairs = [(expected, found)] if isinstance(expected, Tensor) else list(zip(expected, found))
        assert pairs
        for wanted, given in pairs:
            if isinstance(wanted, Tensor):
                assert given.dtype == wanted.dtype
                assert torch.equal(given, wanted)


def _converted(item: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in another precision."""
    if isinstance(item, list):
        return [_converted(each, dtype) for each in item]
    return item.to(dtype) if isinstance(item, Tensor) and item.is_floating_point() else item


def allow_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a teacher compute in half precision on a CPU that has no instructions for it: torch does, slowly."""
    monkeypatch.setattr('mmkd_plugin.teachers.options._cpu_computes', lambda dtype: True)
