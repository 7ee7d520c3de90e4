"""Recorder of a module's output."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mmkd_plugin.compat.razor import ModuleOutputsRecorder
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import TASK_UTILS
from mmkd_plugin.utilities.nested import map_tensors


@TASK_UTILS.register_module()
class ModuleOutputRecorder(ModuleOutputsRecorder):
    """What a module returned, refused when it was overwritten afterwards.

    MMRazor's ``ModuleOutputs`` keeps a reference: an in-place operation that follows the module silently changes the
    record. This recorder remembers the tensor's version and says so instead.

    Args:
        source: Path of the module in the model, as in ``model.named_modules()``.
        direct: Whether calls of the module's ``forward`` that pass its hooks are recorded as well: MMSegmentation
            calls its heads so.

    Raises:
        DistillError: If the module does not exist, never ran, or its output was changed in place.
    """

    def __init__(self, source: str, direct: bool = False) -> None:
        super().__init__(source)
        self.direct = direct
        # No part of the model: copies of the algorithm would hold it twice.
        self._module: Callable[[], Any] = lambda: None
        self._replaced: Callable | None = None

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Hook the module, or name the modules closest to a mistyped path."""
        assert model is not None
        modules = dict(model.named_modules())
        if self.source not in modules:
            raise DistillError(
                f'The recorder\'s source "{self.source}" is not a module of {type(model).__name__}: '
                + nearest(self.source, (name for name in modules if name))
            )
        if isinstance(modules[self.source], (nn.ModuleList, nn.ModuleDict)):
            raise DistillError(
                f'The recorder\'s source "{self.source}" is a container that is never called itself; name one of its '
                f'members, for instance "{self.source}.{next(iter(modules[self.source]._modules), 0)}".'
            )
        self._module = weakref.ref(modules[self.source])
        if not self.direct:
            super().prepare_from_model(model)

    def __enter__(self) -> None:
        """Start to record."""
        super().__enter__()
        if self.direct:
            # Only for the length of a step, so that copies of the model never hold the replaced method. One that was
            # compiled, or that recomputes its activations, is an attribute of the module itself.
            self._replaced = self._module().__dict__.get('forward')
            self._module().__dict__['forward'] = self._forward

    def __exit__(self, *error: Any) -> None:
        """Stop to record."""
        super().__exit__(*error)
        if self.direct:
            self._module().__dict__.pop('forward', None)
            if self._replaced is not None:
                self._module().__dict__['forward'] = self._replaced
            self._replaced = None

    def _forward(self, *inputs: Any, **options: Any) -> Any:
        """The module's own ``forward``, recorded."""
        module = self._module()
        forward = self._replaced or functools.partial(type(module).forward, module)
        outputs = forward(*inputs, **options)
        self.forward_hook(module, inputs, outputs)
        return outputs

    def forward_hook(self, module: nn.Module, inputs: tuple, outputs: Any) -> None:
        """Keep the output together with its version counter."""
        if self.recording:
            self.data_buffer.append((outputs, _version(outputs)))

    def convert(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply a function to the tensors of all records; what was overwritten before stays known as such."""
        for index, (outputs, version) in enumerate(self.data_buffer):
            if version == _version(outputs):
                converted = map_tensors(function, outputs)
                self.data_buffer[index] = (converted, _version(converted))

    def get_record_data(self, record_idx: int = 0, data_idx: int | None = None) -> Any:
        """Return one record.

        Args:
            record_idx: Which call of the module, counted from 0.
            data_idx: Which element of a tuple or list output; all of it by default.

        Returns:
            The module's output, or the element asked for.
        """
        if record_idx >= len(self.data_buffer):
            raise DistillError(
                f'The module "{self.source}" ran {len(self.data_buffer)} times in this step, so record '
                f'{record_idx} does not exist; name a module that the forward pass calls.'
            )
        outputs, version = self.data_buffer[record_idx]
        if version != _version(outputs):
            raise DistillError(
                f'The output of "{self.source}" was overwritten by an in-place operation after it was recorded; '
                'record a module behind that operation, or make the operation not in place.'
            )
        if data_idx is None:
            return outputs
        if not isinstance(outputs, (tuple, list)) or data_idx >= len(outputs):
            size = len(outputs) if isinstance(outputs, (tuple, list)) else 1
            raise DistillError(f'Output {data_idx} of "{self.source}" does not exist: it returns {size} tensor(s).')
        return outputs[data_idx]

    @property
    def place(self) -> str:
        """What is recorded, the same for all recorders of it."""
        return self.source

    def parts(self, record_idx: int, data_idx: int | None) -> list[tuple[int, int | None]]:
        """What must be kept of a step to read a record again: :meth:`part` gives each, :meth:`restore` takes them."""
        return [(record_idx, data_idx)]

    def part(self, record_idx: int, data_idx: int | None) -> Any:
        """One of :meth:`parts`, as it was recorded."""
        return self.get_record_data(record_idx, data_idx)

    def restore(self, parts: dict[tuple[int, Any], torch.Tensor]) -> None:
        """Hold parts that were kept, in the place of a forward pass."""
        self.reset_data_buffer()
        for record in range(1 + max(record for record, _ in parts)):
            held = {data: value for (index, data), value in parts.items() if index == record}
            last = max((data for data in held if data is not None), default=0)
            outputs = held[None] if None in held else tuple(held.get(data) for data in range(1 + last))
            self.data_buffer.append((outputs, _version(outputs)))


def _version(outputs: Any) -> tuple[int, ...]:
    """Version counters of all tensors in a module's output."""
    if isinstance(outputs, torch.Tensor):
        return () if outputs.is_inference() else (outputs._version,)
    if isinstance(outputs, (tuple, list)):
        return tuple(version for item in outputs for version in _version(item))
    return ()
