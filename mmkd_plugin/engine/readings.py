"""Numbers of a step that are looked at later, without making the host wait for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.distillers.entries import LEVEL


class Label(NamedTuple):
    """What a number is.

    Attributes:
        kind: ``'term'`` of the distillation, ``'loss'`` of the student, ``'discriminator'``, ``'gradient'``,
            ``'scale'`` of mixed precision, or ``'weight'``.
        name: Loss and term, or the parameter.
        level: Pyramid level of a term or loss, empty where there are none.
    """

    kind: str
    name: str
    level: str = ''

    def __str__(self) -> str:
        at = f' at level {self.level}' if self.level else ''
        return {
            'gradient': f'the gradient of "{self.name}"',
            'weight': f'the weight "{self.name}"',
            'discriminator': f'"{self.name}" of the discriminator',
            'scale': 'the loss scale of mixed precision',
        }.get(self.kind, f'"{self.name}"{at}')


class Finding(NamedTuple):
    """A number that is not finite."""

    label: Label
    value: float


LEAST_SCALE = 2.0**-20
"""A loss scale below has been halved for dozens of steps in a row: the gradient is finite at no scale."""


class Reading:
    """Some numbers on their way to the host.

    On a GPU they are copied to pinned memory in the order of its stream, and an event marks the end of the copy; asking
    whether it has passed does not wait. On the host itself there is nothing to wait for.

    Args:
        labels: What the numbers are.
        values: As many scalars, on one device.
    """

    def __init__(self, labels: Sequence[Label], values: Sequence[Tensor]) -> None:
        self.labels = labels
        dtype = torch.float64 if any(value.dtype is torch.float64 for value in values) else torch.float32
        device = next((value.device for value in values if value.device.type != 'cpu'), values[0].device)
        options: dict[str, Any] = dict(device=device, dtype=dtype, non_blocking=True)
        stacked = torch.stack([value.detach().reshape(()).to(**options) for value in values])
        self._event: Any = None
        if stacked.is_cuda:
            self._values = torch.empty(stacked.shape, dtype=dtype, pin_memory=True)
            self._values.copy_(stacked, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._values = stacked

    def ready(self) -> bool:
        """Whether the numbers are there; does not wait."""
        return self._event is None or self._event.query()

    def findings(self) -> list[Finding]:
        """What is not finite; waits for the numbers."""
        if self._event is not None:
            self._event.synchronize()
        return [
            Finding(label, value)
            for label, value in zip(self.labels, self._values.tolist())
            if not math.isfinite(value) or (label.kind == 'scale' and value < LEAST_SCALE)
        ]


def read(numbers: dict[Label, Tensor]) -> Reading | None:
    """A reading of some numbers, None where there are none."""
    return Reading(list(numbers), list(numbers.values())) if numbers else None


def losses_by_level(losses: dict[str, Any]) -> dict[Label, Tensor]:
    """The student's losses, those that it gives as a list one by one; what is only logged is left out."""
    found = {}
    for name, value in losses.items():
        if 'loss' not in name:
            continue
        if isinstance(value, Tensor):
            found[Label('loss', name)] = value.detach().mean()
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                found[Label('loss', name, str(index))] = item.detach().mean()
    return found


def terms_by_level(algorithm: DistillAlgorithm) -> dict[Label, Tensor]:
    """The weighted distillation terms of this step, before levels are added up."""
    found = {}
    for name, values in algorithm.distiller.terms.items():
        loss, _, level = name.partition(LEVEL)
        for term, value in values.items():
            if isinstance(value, Tensor):
                found[Label('term', f'{loss}.{term}' if term else loss, level)] = value.detach().mean()
    return found


def peaks(kind: str, tensors: Iterable[tuple[str, Tensor]]) -> dict[Label, Tensor]:
    """The largest magnitude in each tensor, which is finite where all of the tensor is.

    Unlike another norm it cannot overflow. One call looks at all tensors of a dtype, which newer torch does in few
    kernels on a GPU; a processor finds the smallest and the largest value in a twentieth of the time of that norm.

    Args:
        kind: Kind of the labels.
        tensors: With their names; those that hold no floating-point numbers are passed over.
    """
    groups: dict[Any, list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel() and tensor.layout is torch.strided:
            groups.setdefault((tensor.dtype, tensor.device), []).append((name, tensor))
    found: dict[Label, Tensor] = {}
    with torch.no_grad():
        for group in groups.values():
            found.update((Label(kind, name), value) for (name, _), value in zip(group, _largest(group)))
    return found


def _largest(group: Sequence[tuple[str, Tensor]]) -> Sequence[Tensor]:
    """The largest magnitude in each tensor; all are of one dtype and on one device."""
    tensors = [tensor for _, tensor in group]
    if tensors[0].device.type != 'cpu':
        return torch._foreach_norm(tensors, float('inf'))
    ends = [torch.aminmax(tensor) for tensor in tensors]
    least, most = (torch.stack(side) for side in zip(*ends))
    return torch.maximum(-least, most).unbind()
