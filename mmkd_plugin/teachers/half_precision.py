"""A teacher that computes in half precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_plugin.teachers.flow import Flow
from mmkd_plugin.teachers.savings import Saving, device_of
from mmkd_plugin.utilities.mmcv_operators import operators
from mmkd_plugin.utilities.nested import map_tensors
from mmkd_plugin.utilities.precision import HALF


class HalfPrecision(Saving):
    """Compute in half precision; outside of :meth:`running` the model is what it was.

    Batch norms stay in single precision, which torch mixes with maps in half precision; so do operators of mmcv, which
    lack half precision here or there, and what takes boxes, whose coordinates need more digits.

    Args:
        model: The teacher.
        dtype: Name of the precision.
    """

    name = 'dtype'

    def __init__(self, model: nn.Module, dtype: str) -> None:
        super().__init__(model)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._swaps: list[tuple[dict, str, Any, Any]] | None = None
        self._handles: list[Any] = []
        self._on = False

    def apply(self, flow: Flow) -> str:
        """Let what stays in single precision see it."""
        for module in operators(self.model):
            self._handles += [
                module.register_forward_pre_hook(self._widen, with_kwargs=True),
                module.register_forward_hook(self._narrow),
            ]
        return str(self.dtype).rpartition('.')[2]

    def undo(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._swaps = [], None

    def moved(self) -> None:
        """Convert the weights anew."""
        self._swaps = None

    def inputs(self, batch: Tensor) -> Tensor:
        """Convert the batch."""
        return batch.to(self.dtype)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Give the model the converted weights, with autocast off."""
        if self._swaps is None:
            self._swaps = self._converted()
        self._on = True
        for table, key, _, half in self._swaps:
            table[key] = half
        try:
            with torch.autocast(device_of(self.model).type, enabled=False):
                yield
        finally:
            for table, key, plain, _ in self._swaps:
                table[key] = plain
            self._on = False

    def held(self) -> int:
        """Bytes of the converted weights."""
        return sum({id(half): half.nbytes for _, _, _, half in self._swaps or []}.values())

    def _converted(self) -> list[tuple[dict, str, Any, Any]]:
        whole = [*operators(self.model), *(item for item in self.model.modules() if isinstance(item, _BatchNorm))]
        kept = {id(inner) for module in whole for inner in module.modules()}
        done: dict[int, Any] = {}
        swaps = []
        for module in self.model.modules():
            for table in (module._parameters, module._buffers) if id(module) not in kept else ():
                for key, item in table.items():
                    if item is None or not item.is_floating_point():
                        continue
                    if id(item) not in done:
                        half = item.detach().to(self.dtype)
                        done[id(item)] = nn.Parameter(half, False) if isinstance(item, nn.Parameter) else half
                    swaps.append((table, key, item, done[id(item)]))
        return swaps

    def _widen(self, module: nn.Module, inputs: Any, named: Any) -> Any:
        return (map_tensors(_single, inputs), map_tensors(_single, named)) if self._on else None

    def _narrow(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        return map_tensors(self._half, outputs) if self._on else None

    def _half(self, item: Tensor) -> Tensor:
        return item.to(self.dtype) if item.is_floating_point() else item


def _single(item: Tensor) -> Tensor:
    """Half precision as single precision, all else as it is."""
    return item.float() if item.dtype in HALF else item
