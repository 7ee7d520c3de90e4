"""Ways to make a teacher's forward pass cheaper: each is switched on for a model, and can be taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable, ClassVar

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.flow import Flow
from mmkd_plugin.utilities.nested import map_tensors
from mmkd_plugin.utilities.precision import HALF

_SMALL = 4
"""A part of fewer modules is not worth compiling."""


class Saving:
    """One way.

    Args:
        model: The teacher.
    """

    name: ClassVar[str]

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def apply(self, flow: Flow) -> str:
        """Switch it on.

        Args:
            flow: What a plain forward pass showed.

        Returns:
            What was done, in a few words; may be empty.
        """
        return ''

    def undo(self) -> None:
        """Make the model what it was."""

    def settle(self) -> None:
        """Forget how to take it back."""

    def moved(self) -> None:
        """The model came to another device or type."""

    def inputs(self, batch: Tensor) -> Tensor:
        """The batch as the model takes it now."""
        return batch

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around each forward pass."""
        yield

    def tensors(self) -> list[Tensor]:
        """What is held beside the model's own parameters and buffers."""
        return []


class FuseBN(Saving):
    """Fold batch norms into the convolutions before them."""

    name = 'fuse_bn'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._before: list[tuple[dict, str, Any]] = []

    def apply(self, flow: Flow) -> str:
        """Fold what the flow allows, pair by pair."""
        shared = _shared(self.model)
        places = _places(self.model)
        pairs = [pair for pair in flow.pairs() if not shared & {id(item) for item in pair.conv.parameters()}]
        for conv, norm in pairs:
            self._before += [(conv._parameters, key, conv._parameters[key]) for key in ('weight', 'bias')]
            fuse_conv_bn(nn.Sequential(conv, norm))
            conv.requires_grad_(False)
            for table, key in places[id(norm)]:
                self._before.append((table, key, norm))
                table[key] = nn.Identity()
        return f'{len(pairs)} of {_norms(self.model) + len(pairs)} batch norms'

    def undo(self) -> None:
        """Put weights and batch norms back."""
        for table, key, item in self._before:
            table[key] = item
        self._before = []

    def settle(self) -> None:
        """Let go of the weights as they were loaded."""
        self._before = []


class ChannelsLast(Saving):
    """Lay maps and kernels out pixel by pixel."""

    name = 'channels_last'

    def apply(self, flow: Flow) -> str:
        """Convert the weights."""
        self.model.to(memory_format=torch.channels_last)
        return ''

    def undo(self) -> None:
        """Convert them back."""
        for item in (*self.model.parameters(), *self.model.buffers()):
            item.data = item.data.contiguous()

    def inputs(self, batch: Tensor) -> Tensor:
        """Convert the batch."""
        return batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch


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
        whole = _whole(self.model)
        outermost = {id(inner) for module in whole for inner in list(module.modules())[1:]}
        for module in whole:
            if id(module) not in outermost and not isinstance(module, _BatchNorm):
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
            with torch.autocast(_device(self.model).type, enabled=False):
                yield
        finally:
            for table, key, plain, _ in self._swaps:
                table[key] = plain
            self._on = False

    def tensors(self) -> list[Tensor]:
        """The converted weights."""
        return [half for _, _, _, half in self._swaps or []]

    def _converted(self) -> list[tuple[dict, str, Any, Any]]:
        kept = {id(inner) for module in _whole(self.model) for inner in module.modules()}
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
        return (map_tensors(single, inputs), map_tensors(single, named)) if self._on else None

    def _narrow(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        return map_tensors(self._half, outputs) if self._on else None

    def _half(self, item: Tensor) -> Tensor:
        return item.to(self.dtype) if item.is_floating_point() else item


class Compile(Saving):
    """Compile the parts inside of which nothing is recorded, so that records and the early end stay what they are."""

    name = 'compile'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._compiled: list[tuple[nn.Module, Callable]] = []

    def apply(self, flow: Flow) -> str:
        """Choose the parts; each is compiled when it runs first."""
        for module in _parts(self.model, flow):
            forward = type(module).forward.__get__(module)
            self._compiled.append((module, torch.compile(forward)))
        if not self._compiled:
            raise DistillError('no part of the teacher is free of recorded modules')
        return f'{len(self._compiled)} parts'

    def undo(self) -> None:
        """Drop what was compiled."""
        self._compiled = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Put the compiled parts in the place of their own ``forward``."""
        for module, forward in self._compiled:
            module.__dict__['forward'] = forward
        try:
            yield
        finally:
            for module, _ in self._compiled:
                module.__dict__.pop('forward', None)


class OnDevice(Saving):
    """Let the teacher lie on a device of its own.

    Args:
        model: The teacher.
        device: The device's name.
    """

    name = 'device'

    def __init__(self, model: nn.Module, device: str) -> None:
        super().__init__(model)
        self.device = torch.device(device)
        self._home = self.device

    def apply(self, flow: Flow) -> str:
        """Move it."""
        self._home = _device(self.model)
        self.model.to(self.device)
        return str(self.device)

    def undo(self) -> None:
        """Move it back."""
        self.model.to(self._home)

    def moved(self) -> None:
        """Move it again, where the student went elsewhere."""
        self._home = _device(self.model)
        self.model.to(self.device)

    def inputs(self, batch: Tensor) -> Tensor:
        """Move the batch."""
        return batch.to(self.device, non_blocking=True)


class OwnStream(Saving):
    """Let a GPU work on teacher and student at the same time.

    Args:
        model: The teacher.
        waits: Whether the teacher reads what this step finds before it, and so has to wait.
    """

    name = 'stream'

    def __init__(self, model: nn.Module, waits: bool) -> None:
        super().__init__(model)
        self._waits = waits
        self._stream: Any = None
        self._ready: Any = None

    def apply(self, flow: Flow) -> str:
        """Make the stream."""
        self._stream = torch.cuda.Stream(_device(self.model))
        return ''

    def undo(self) -> None:
        """Drop it."""
        self._stream = None

    def mark(self) -> None:
        """The batch is there; the teacher may begin."""
        if self._stream is not None and not self._waits:
            self._ready = torch.cuda.current_stream(self._stream.device).record_event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Queue what follows in the stream; the stream outside waits for its end."""
        outer = torch.cuda.current_stream(self._stream.device)
        if self._ready is None:
            self._stream.wait_stream(outer)
        else:
            self._stream.wait_event(self._ready)
        self._ready = None
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outer.wait_stream(self._stream)

    def inputs(self, batch: Tensor) -> Tensor:
        """Keep the memory of the batch until the stream has read it."""
        if batch.device == self._stream.device:
            batch.record_stream(self._stream)
        return batch


def _whole(model: nn.Module) -> list[nn.Module]:
    """Modules that compute in single precision whatever the rest does."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        or _of_mmcv(module)
        or isinstance(getattr(module, 'roi_layers', None), nn.ModuleList)
    ]


def _parts(module: nn.Module, flow: Flow, root: bool = True) -> Iterator[nn.Module]:
    """The largest parts that ran, and inside of which nobody reads anything; operators of mmcv are not compiled."""
    inside = list(module.modules())[1:]
    free = not any(id(inner) in flow.watched or _of_mmcv(inner) for inner in inside)
    if not root and free and flow.ran(module):
        if sum(flow.ran(inner) > 0 for inner in inside) >= _SMALL:
            yield module
        return
    for child in module.children():
        yield from _parts(child, flow, False)


def _of_mmcv(module: nn.Module) -> bool:
    return type(module).__module__.startswith('mmcv.ops.')


def _places(model: nn.Module) -> dict[int, list[tuple[dict, str]]]:
    """Where each module stands in the tables of others."""
    found: dict[int, list[tuple[dict, str]]] = {}
    for module in model.modules():
        for key, child in module._modules.items():
            found.setdefault(id(child), []).append((module._modules, key))
    return found


def _shared(model: nn.Module) -> set[int]:
    """Parameters that several modules hold."""
    seen: set[int] = set()
    twice: set[int] = set()
    for module in model.modules():
        for item in module._parameters.values():
            if item is not None:
                (twice if id(item) in seen else seen).add(id(item))
    return twice


def _norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def _device(model: nn.Module) -> torch.device:
    return next((item.device for item in (*model.parameters(), *model.buffers())), torch.device('cpu'))


def single(item: Tensor) -> Tensor:
    """Half precision as single precision, all else as it is."""
    return item.float() if item.dtype in HALF else item
