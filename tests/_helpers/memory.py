"""Count the memory that tensors take, on any device."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from torch import Tensor, empty
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class PeakMemory(TorchDispatchMode):
    """Record the largest number of bytes that tensors made within the block held at one time.

    Attributes:
        peak: Bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        tensor = empty(0)
        if tensor.untyped_storage() is not tensor.untyped_storage():
            pytest.skip('this torch does not tell when the memory of a tensor is released')
        self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_address(item) for item in tree_flatten((args, kwargs))[0] if isinstance(item, Tensor)}
        for item in tree_flatten(result)[0]:
            if isinstance(item, Tensor) and _address(item) not in {*self._held, *given}:
                storage = item.untyped_storage()
                self._held[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._held.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self._held.values()))
        return result


def _address(tensor: Tensor) -> int:
    """What tells the storages of tensors apart."""
    return tensor.untyped_storage()._cdata
