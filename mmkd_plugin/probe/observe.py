"""Run a model once on an image of noise and keep what its modules returned."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.anatomy import auxiliary_heads, trunk_name
from mmkd_plugin.probe.maps import HeadTaps, probe_decode_head, probe_head
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.probe.watch import Watch, is_map
from mmkd_plugin.utilities.clips import detector_of, detector_path
from mmkd_plugin.utilities.rng import isolated_rng

PROBE_SIZES = (256, 512, 1024)
"""Sides in pixels of the images that a model is probed with, until it takes one; the first has two cells at the
coarsest usual stride, 128."""


@dataclasses.dataclass(frozen=True)
class Level:
    """A feature map that the trunk returned.

    Attributes:
        feature: The map.
        tap: Where it is taken from.
    """

    feature: Tensor
    tap: Tap


@dataclasses.dataclass(frozen=True)
class Observation:
    """What one run of a model showed.

    Attributes:
        watch: What its modules took and returned.
        trunk: Path of the module that returned the levels.
        levels: The feature maps among what it returned.
        backbone: Those among what the backbone returned.
        decode_head: Taps of a segmentor's decode head, None where it has none that returns a class map.
        auxiliary_heads: Those of its auxiliary heads.
    """

    watch: Watch
    trunk: str
    levels: tuple[Level, ...]
    backbone: tuple[Level, ...]
    decode_head: HeadTaps | None
    auxiliary_heads: tuple[HeadTaps, ...]


def observe(model: Any, role: str) -> Observation:
    """Run a model once on a small image, or on a larger one where it must.

    Args:
        model: The detector or segmentor; its state is left as it was.
        role: ``'student'`` or ``'teacher'``, for messages.

    Returns:
        What its modules returned.

    Raises:
        DistillError: If the model has neither feature levels nor a decode head.
    """
    name = trunk_name(model)
    if name not in dict(model.named_modules()):
        raise DistillError(
            f'The {role}, {type(model).__name__}, has neither neck nor backbone; distillation needs a model of '
            'that form.'
        )
    watch = Watch(model)
    training = [module for module in model.modules() if module.training]
    parameter = next(model.parameters())
    try:
        with isolated_rng(), torch.no_grad():
            model.eval()
            features, decode_head = _features(model, watch, role, parameter)
            result = watch.results.get(name)
            _run_dense_heads(detector_of(model), features)
            auxiliary = [probe_head(watch, path, head, features) for path, head in auxiliary_heads(model).items()]
    finally:
        watch.stop()
        for module in training:
            module.training = True
    levels = _levels(watch, name, result[-1] if result else None)
    backbone = f'{detector_path(model)}backbone'
    first = watch.results.get(backbone)
    if not levels and decode_head is None:
        raise DistillError(
            f'The {name} of the {role}, {type(model).__name__}, returns no feature maps of the form (N, C, H, W).'
        )
    bottom = _levels(watch, backbone, first[-1] if first else None)
    return Observation(watch, name, levels, bottom, decode_head, tuple(head for head in auxiliary if head is not None))


def _levels(watch: Watch, trunk: str, outputs: Any) -> tuple[Level, ...]:
    """The feature maps that the trunk returned, alone or among others."""
    if is_map(outputs):
        return (Level(outputs, watch.tap(trunk, outputs)),)
    if not isinstance(outputs, (tuple, list)):
        return ()
    return tuple(
        Level(output, watch.tap(trunk, output, data_idx=index))
        for index, output in enumerate(outputs)
        if is_map(output)
    )


def _features(model: Any, watch: Watch, role: str, like: Tensor) -> tuple[Any, HeadTaps | None]:
    """Run a model's trunk and decode head on the smallest image that both take, or else the trunk.

    Returns:
        The features, and the taps of the decode head, None where it gave none.

    Raises:
        DistillError: If the trunk takes no image.
    """
    first, smallest = None, None
    for size in _sizes(model):
        try:
            features = _run_trunk(model, watch, size, like)
        except Exception as error:
            first = first or error
            continue
        watch.refused = False
        decode_head = probe_decode_head(watch, model, features)
        if decode_head is not None or not watch.refused:
            return features, decode_head
        smallest = smallest or size
    if smallest is not None:
        return _run_trunk(model, watch, smallest, like), None
    raise DistillError(
        f'The {role}, {type(model).__name__}, cannot be run on an image of {PROBE_SIZES[0]} pixels or a larger one to '
        f'find its levels ({str(first).splitlines()[0]}); write the distiller config by hand or choose another one.'
    ) from first


def _run_trunk(model: Any, watch: Watch, size: tuple[int, int], like: Tensor) -> Any:
    """The features of an image of noise."""
    watch.start(size)
    return detector_of(model).extract_feat(torch.rand(1, 3, *size, device=like.device, dtype=like.dtype))


def _sizes(model: nn.Module) -> list[tuple[int, int]]:
    """Heights and widths to try: the usual one, the one that the model's preprocessor makes, larger ones."""
    own = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    usual = [(side, side) for side in PROBE_SIZES]
    return [usual[0], *([tuple(own)] if own else []), *usual[1:]]


def _run_dense_heads(model: nn.Module, features: Any) -> None:
    """Run a detector's dense heads, so that their modules are seen as well."""
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.Module):
            try:
                head(features)
            except Exception:  # A head that needs more than features, a decoder say, is not probed.
                continue
