"""A teacher whose parts are compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable

import torch
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.flow import Flow
from mmkd_plugin.teachers.savings import Saving
from mmkd_plugin.utilities.mmcv_operators import of_mmcv

_SMALL = 4
"""A part of fewer modules is not worth compiling."""


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
        return f'{len(self._compiled)} part' + 's' * (len(self._compiled) > 1)

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


def _parts(module: nn.Module, flow: Flow, root: bool = True) -> Iterator[nn.Module]:
    """The largest parts that ran, and inside of which nobody reads anything; operators of mmcv are not compiled."""
    inside = list(module.modules())[1:]
    free = not any(id(inner) in flow.watched or of_mmcv(inner) for inner in inside)
    if not root and free and flow.ran(module):
        if sum(flow.ran(inner) > 0 for inner in inside) >= _SMALL:
            yield module
        return
    for child in module.children():
        yield from _parts(child, flow, False)
