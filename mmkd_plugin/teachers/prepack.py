"""A teacher whose convolutions have their weights in the order in which the CPU reads them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Callable

import torch
from torch import Tensor, nn

from mmkd_plugin.teachers.flow import Flow
from mmkd_plugin.teachers.savings import Saving


class Prepack(Saving):
    """Lay weights out once for oneDNN, which otherwise does so in each forward pass.

    The layout is the best one for images of the size of the first batch; for others oneDNN changes it in the pass.
    """

    name = 'prepack'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._convolutions: list[tuple[nn.Conv2d, tuple[int, ...]]] = []
        self._forwards: list[Callable[[Tensor], Tensor]] | None = None
        self._bytes = 0

    def apply(self, flow: Flow) -> str:
        """Note the convolutions; the weights are laid out when they run first, in the precision of then."""
        self._convolutions = [(item, flow.shapes[id(item)]) for item in flow.convolutions(self.model)]
        self._forwards = None
        count = len(self._convolutions)
        return f'{count} convolution' + 's' * (count != 1)

    def undo(self) -> None:
        """Let go of what was laid out."""
        self._convolutions, self._forwards = [], None

    def moved(self) -> None:
        """Lay out anew."""
        self._forwards = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Put the convolutions with their packed weights in the place of the plain ones; autocast needs the latter."""
        if torch.is_autocast_cpu_enabled() or any(item.weight.dtype == torch.float64 for item, _ in self._convolutions):
            yield
            return
        if self._forwards is None:
            self._forwards = [_packed(*item) for item in self._convolutions]
            self._bytes = sum(module.weight.nbytes for module, _ in self._convolutions)
        for (module, _), forward in zip(self._convolutions, self._forwards):
            module.__dict__['forward'] = forward
        try:
            yield
        finally:
            for module, _ in self._convolutions:
                module.__dict__.pop('forward', None)

    def held(self) -> int:
        """Bytes of the packed weights, but for what oneDNN adds at their edges."""
        return 0 if self._forwards is None else self._bytes


def _packed(module: nn.Conv2d, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The forward pass of a convolution with its weights packed."""
    settings = (module.padding, module.stride, module.dilation, module.groups)
    weight = torch.ops.mkldnn._reorder_convolution_weight(module.weight, *settings, list(shape))
    return functools.partial(_convolve, weight=weight, bias=module.bias, settings=settings)


def _convolve(maps: Tensor, weight: Tensor, bias: Any, settings: tuple) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(maps, weight, bias, *settings, 'none', [], '')
