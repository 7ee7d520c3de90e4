"""Find a model's levels, channels and strides by running it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_plugin.algorithms.rng import isolated_rng
from mmkd_plugin.errors import DistillError

PROBE_SIZE = 256
"""Side in pixels of the image that a model is probed with: two cells at the coarsest usual stride, 128."""


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place to take a feature from.

    Attributes:
        source: Path of the module whose output it is.
        channels: Channels of the feature.
        stride: Pixels of the image per cell.
        record_idx: Which call of the module in one forward pass.
        data_idx: Which element of the output, where it is a tuple.
    """

    source: str
    channels: int
    stride: int
    record_idx: int = 0
    data_idx: int | None = None


@dataclasses.dataclass(frozen=True)
class LevelPair:
    """The taps of student and teacher at one stride."""

    student: Tap
    teacher: Tap


@dataclasses.dataclass(frozen=True)
class ModelTaps:
    """All levels of one model: as its neck returns them, and before norm and activation."""

    name: str
    output: tuple[Tap, ...]
    pre_norm: tuple[Tap, ...]


@dataclasses.dataclass(frozen=True)
class ModelPair:
    """Student and teacher as a method sees them."""

    student: ModelTaps
    teacher: ModelTaps

    def levels(self, tap: str) -> list[LevelPair]:
        """Match the levels of both models by stride.

        Args:
            tap: ``'output'`` or ``'pre_norm'``.

        Returns:
            The pairs from fine to coarse.

        Raises:
            DistillError: If no stride occurs in both.
        """
        students: Sequence[Tap] = getattr(self.student, tap)
        teachers = {level.stride: level for level in getattr(self.teacher, tap)}
        pairs = [LevelPair(level, teachers[level.stride]) for level in students if level.stride in teachers]
        if not pairs:
            raise DistillError(
                f'Student and teacher have no level of the same stride: {[level.stride for level in students]} in '
                f'{self.student.name}, {sorted(teachers)} in {self.teacher.name}; choose a teacher with such a level.'
            )
        left = [level.stride for level in students if level.stride not in teachers]
        if left:
            print_log(
                f'Student levels of stride {left} have no teacher level of that stride and are not distilled.',
                'current',
            )
        return pairs


def probe(model: Any, role: str) -> ModelTaps:
    """Run a model once on a small image and list its levels.

    The levels are what the neck returns, or the backbone where there is no neck. A level that a convolution returned
    has its ``pre_norm`` tap there, inside a ``ConvModule`` before norm and activation; where some levels come from a
    convolution, those that do not (a max-pooled one, say) carry nothing of their own and have no such tap.

    Args:
        model: The detector or segmentor; its state is left as it was.
        role: ``'student'`` or ``'teacher'``, for messages.

    Returns:
        The levels from fine to coarse.

    Raises:
        DistillError: If the model has no feature levels.
    """
    name = 'neck' if getattr(model, 'neck', None) is not None else 'backbone'
    trunk = getattr(model, name, None)
    if trunk is None:
        raise DistillError(
            f'The {role}, {type(model).__name__}, has neither neck nor backbone; distillation needs a model of '
            'that form.'
        )
    calls: dict[str, int] = {}
    origins: dict[int, list[tuple[str, int]]] = {}
    result: list[Any] = []
    alive: list[Tensor] = []

    def watch(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            index = calls.get(path, 0)
            calls[path] = index + 1
            if path == name:
                result.append(outputs)
            elif isinstance(outputs, Tensor):
                alive.append(outputs)
                origins.setdefault(id(outputs), []).append((path, index))

        return hook

    handles = [
        module.register_forward_hook(watch(path))
        for path, module in model.named_modules()
        if path == name or path.startswith(f'{name}.')
    ]
    training = [module for module in model.modules() if module.training]
    parameter = next(model.parameters())
    try:
        with isolated_rng(), torch.no_grad():
            model.eval()
            model.extract_feat(torch.rand(1, 3, PROBE_SIZE, PROBE_SIZE, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    outputs = result[-1] if result else None
    levels = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    single = not isinstance(outputs, (tuple, list))
    modules = dict(model.named_modules())
    taps, inner = [], []
    for index, level in enumerate(levels):
        if not isinstance(level, Tensor) or level.dim() != 4:
            continue
        tap = Tap(name, level.shape[1], round(PROBE_SIZE / level.shape[-1]), data_idx=None if single else index)
        taps.append(tap)
        convolution = _convolution_of(origins.get(id(level), []), modules)
        if convolution is not None:
            inner.append(dataclasses.replace(tap, source=convolution[0], record_idx=convolution[1], data_idx=None))
    if not taps:
        raise DistillError(
            f'The {name} of the {role}, {type(model).__name__}, returns no feature maps of the form (N, C, H, W).'
        )
    taps.sort(key=lambda tap: tap.stride)
    inner.sort(key=lambda tap: tap.stride)
    return ModelTaps(type(model).__name__, tuple(taps), tuple(inner or taps))


def _convolution_of(origins: list[tuple[str, int]], modules: dict[str, nn.Module]) -> tuple[str, int] | None:
    """Path and call of the convolution among the modules that returned a level, or inside one of them.

    None where a function, or a module that is no convolution block, made the level.
    """
    for path, index in origins:
        while isinstance(getattr(modules[path], 'conv', None), nn.Module):
            path = f'{path}.conv'
        if isinstance(modules[path], nn.Conv2d):
            return path, index
    return None
