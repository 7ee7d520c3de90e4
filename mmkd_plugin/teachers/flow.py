"""What a forward pass shows of a model: which modules ran, and which batch norm took what a convolution gave."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from mmcv.cnn.bricks.wrappers import Conv2d as PatientConv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PLAIN = (nn.Conv2d, PatientConv2d)
"""Convolutions that do nothing to their weights."""


class Pair(NamedTuple):
    """A batch norm behind the convolution whose output it takes."""

    conv: nn.Conv2d
    norm: _BatchNorm


class Flow:
    """What was seen.

    Args:
        watched: Modules that somebody reads or that have hooks of others.

    Attributes:
        shapes: Shape of the first input of each convolution, by the identity of the module.
    """

    def __init__(self, watched: Collection[nn.Module]) -> None:
        self.watched = {id(module) for module in watched}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self._calls: Counter[int] = Counter()
        self._made: dict[int, tuple[Any, nn.Conv2d]] = {}
        self._pairs: list[Pair] = []

    def convolutions(self, model: nn.Module) -> list[nn.Conv2d]:
        """Plain convolutions that ran and that nobody reads."""
        return [
            module
            for module in model.modules()
            if isinstance(module, nn.Conv2d)
            and type(module) in _PLAIN
            and id(module) in self.shapes
            and id(module) not in self.watched
            and module.padding_mode == 'zeros'
            and not isinstance(module.padding, str)
        ]

    def ran(self, module: nn.Module) -> int:
        """How often a module was called."""
        return self._calls[id(module)]

    def pairs(self) -> list[Pair]:
        """Batch norms that may be folded: each ran once, as did its convolution, and nobody looks in between."""
        return [
            pair
            for pair in self._pairs
            if self.ran(pair.conv) == self.ran(pair.norm) == 1
            and not {id(pair.conv), id(pair.norm)} & self.watched
            and type(pair.conv) in _PLAIN
            and pair.norm.affine
            and pair.norm.running_mean is not None
            and not pair.norm.training
        ]

    def before(self, module: nn.Module, inputs: Any) -> None:
        """Count a call, and see whether a batch norm was given what a convolution made."""
        self._calls[id(module)] += 1
        if isinstance(module, nn.Conv2d) and inputs and isinstance(inputs[0], Tensor):
            self.shapes.setdefault(id(module), tuple(inputs[0].shape))
        if isinstance(module, _BatchNorm) and inputs and isinstance(inputs[0], Tensor):
            found = self._made.get(id(inputs[0]))
            # Of a tensor that is gone, another may have the number.
            if found is not None and found[0]() is inputs[0]:
                self._pairs.append(Pair(found[1], module))

    def behind(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Remember what a convolution made."""
        if isinstance(module, nn.Conv2d) and isinstance(outputs, Tensor):
            self._made[id(outputs)] = (weakref.ref(outputs), module)


@contextlib.contextmanager
def traced(model: nn.Module, read: Collection[nn.Module]) -> Iterator[Flow]:
    """Watch the forward passes within a context.

    Args:
        model: The model; it has no hooks of ours afterwards.
        read: Modules that are read in some way without a hook.

    Yields:
        What is seen.
    """
    hooked = [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    flow = Flow([*hooked, *read])
    handles = [module.register_forward_pre_hook(flow.before) for module in model.modules()]
    handles += [module.register_forward_hook(flow.behind) for module in model.modules()]
    try:
        yield flow
    finally:
        for handle in handles:
            handle.remove()
