"""Recorder of the anchors that a detector's head places on its levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.razor import ModuleOutputsRecorder
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import TASK_UTILS
from mmkd_plugin.utilities.clips import detector_of

CACHED_SIZES = 16
"""How many combinations of feature sizes keep their anchors; the oldest goes first."""


@TASK_UTILS.register_module()
class PriorsRecorder(ModuleOutputsRecorder):
    """The anchors of the student's own head, for the feature sizes of this step.

    They come from the head's prior generator, so no method of the head need be called, and lie on the device of the
    features. They are kept by size, because the generator copies from the host when it places them. ``data_idx``
    selects the feature map of the source whose anchors are meant, ``(H * W * K, 4)`` with the K anchors of a cell in
    succession, ``x1 y1 x2 y2`` in pixels of the network input.

    Args:
        source: Module that returns the feature maps which the head reads: the neck.
        levels: For each feature map the level of the prior generator that lies on it, None where none does. By default
            the generator's levels in their order.

    Raises:
        DistillError: If the model's head has no fixed anchors, or the source returns too few feature maps.
    """

    def __init__(self, source: str = 'neck', levels: Sequence[int | None] | None = None) -> None:
        super().__init__(source)
        self.levels = None if levels is None else list(levels)
        self._generator: Any = None
        self._cache: dict[tuple, list[Tensor | None]] = {}

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Find the prior generator and hook the source."""
        assert model is not None
        self._generator = anchor_generator(model)
        if self._generator is None:
            raise DistillError(
                f'The anchors of {type(model).__name__} cannot be recorded, because its head has no fixed anchors; '
                'choose a method or region that needs none.'
            )
        super().prepare_from_model(model)

    def forward_hook(self, module: nn.Module, inputs: tuple, outputs: Any) -> None:
        """Keep the anchors of each feature map."""
        if self.recording:
            features = [outputs] if isinstance(outputs, Tensor) else list(outputs)
            self.data_buffer.append(self._anchors(features))

    def _anchors(self, features: list[Tensor]) -> list[Tensor | None]:
        """Anchors of each feature map, computed once per combination of sizes."""
        levels = range(len(self._generator.strides)) if self.levels is None else self.levels
        if len(features) < len(levels):
            raise DistillError(
                f'"{self.source}" returns {len(features)} feature maps, but anchors lie on {len(levels)}; name the '
                'module whose outputs the head reads.'
            )
        sizes = tuple((feature.shape[-2], feature.shape[-1]) for feature in features)
        device = features[0].device
        key = (sizes, device)
        if key not in self._cache:
            if len(self._cache) >= CACHED_SIZES:
                self._cache.pop(next(iter(self._cache)))
            self._cache[key] = [
                None if level is None else _place(self._generator, size, level, device)
                for size, level in zip(sizes, levels)
            ]
        return self._cache[key]


def anchor_generator(model: nn.Module) -> Any | None:
    """The prior generator of a detector's dense head, where its priors are boxes.

    Args:
        model: The detector; a two-stage one places anchors in its RPN.

    Returns:
        The generator; None where the head has none, predicts from points or queries, or learns its anchors' shapes.
    """
    heads = (getattr(detector_of(model), name, None) for name in ('rpn_head', 'bbox_head'))
    for head in heads:
        for module in head.modules() if isinstance(head, nn.Module) else ():
            generator = getattr(module, 'prior_generator', None)
            if hasattr(generator, 'single_level_grid_priors'):
                return generator if _place(generator, (1, 1), 0, torch.device('cpu')).shape[-1] == 4 else None
    return None


def anchor_strides(model: nn.Module) -> tuple[int, ...]:
    """Stride in pixels of each level on which a detector places anchors; empty where it places none."""
    generator = anchor_generator(model)
    strides = () if generator is None else generator.strides
    return tuple(int(stride[0] if isinstance(stride, (tuple, list)) else stride) for stride in strides)


def _place(generator: Any, size: tuple[int, int], level: int, device: torch.device) -> Tensor:
    """Priors of one level as a plain tensor, whatever box type the generator returns."""
    priors = generator.single_level_grid_priors(size, level, device=device)
    return getattr(priors, 'tensor', priors)
