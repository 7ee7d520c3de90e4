"""Ways to make a teacher's forward pass cheaper: each is switched on for a model, and can be taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_plugin.teachers.flow import Flow
from mmkd_plugin.utilities.mmcv_operators import operators
from mmkd_plugin.utilities.nested import map_tensors


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

    def held(self) -> int:
        """Bytes that are held beside the model's own parameters and buffers."""
        return 0


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
    """Lay maps and kernels out pixel by pixel.

    Operators of mmcv get maps as they are by default: some of them, such as RoIAlign, read any other wrongly.

    Args:
        model: The teacher.
    """

    name = 'channels_last'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._handles: list[Any] = []

    def apply(self, flow: Flow) -> str:
        """Convert the weights."""
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._handles = [
            module.register_forward_pre_hook(_plainly_laid_out, with_kwargs=True) for module in operators(self.model)
        ]
        return ''

    def undo(self) -> None:
        """Convert them back."""
        for handle in self._handles:
            handle.remove()
        for item in (*self.model.parameters(), *self.model.buffers()):
            # Kernels of one cell would keep their strides, by which torch chooses how it computes.
            item.data = item.data.contiguous().view(-1).view(item.shape)

    def inputs(self, batch: Tensor) -> Tensor:
        """Convert the batch."""
        return batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch


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
        self._home = device_of(self.model)
        self.model.to(self.device)
        return str(self.device)

    def undo(self) -> None:
        """Move it back."""
        self.model.to(self._home)

    def moved(self) -> None:
        """Move it again, where the student went elsewhere."""
        self._home = device_of(self.model)
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
        self._stream = torch.cuda.Stream(device_of(self.model))
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


def _plainly_laid_out(module: nn.Module, inputs: Any, named: Any) -> Any:
    return map_tensors(Tensor.contiguous, inputs), map_tensors(Tensor.contiguous, named)


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


def device_of(model: nn.Module) -> torch.device:
    """Where a model lies."""
    return next((item.device for item in (*model.parameters(), *model.buffers())), torch.device('cpu'))
