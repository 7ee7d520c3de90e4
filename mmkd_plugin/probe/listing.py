"""List the modules of a model that can be tapped, and what of them methods know by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor, nn

from mmkd_plugin.probe.boxes import BoxHead
from mmkd_plugin.probe.maps import HeadTaps
from mmkd_plugin.probe.models import ModelTaps, taps_of
from mmkd_plugin.probe.observe import Observation, observe
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.probe.watch import is_map


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module that returns a feature map.

    Attributes:
        path: Its path, which a method takes as ``tap``.
        kind: Its class.
        shapes: Channels, height and width of its output, for each call in one forward pass.
        strides: Pixels of the student's image per cell, for each call.
        parameters: Number of its own parameters and those of what it holds.
    """

    path: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]
    parameters: int


@dataclasses.dataclass(frozen=True)
class Known:
    """Something that methods know by name.

    Attributes:
        name: Its name, without the number of a level.
        path: Path of the layer that returns it; empty where a function made it, or several layers together.
        shapes: As of a layer; empty for what is no feature map.
        strides: As of a layer.
        text: What to know of it in words.
        tap: Where methods take it from; None where they take it in another way.
    """

    name: str
    path: str = ''
    shapes: tuple[tuple[int, ...], ...] = ()
    strides: tuple[int, ...] = ()
    text: str = ''
    tap: Tap | None = None


@dataclasses.dataclass(frozen=True)
class ModelLayers:
    """One model as :func:`list_layers` finds it.

    Attributes:
        name: Class of the model.
        parameters: Number of its parameters.
        image: Height and width of the image that it was run on.
        layers: Its layers by path, in the order in which they ran; what a layer holds comes behind it.
        modules: Paths of all its modules.
        output: The levels that the neck returns, or the backbone where there is no neck, from fine to coarse.
        pre_norm: The levels before norm and activation.
        heads: What methods know of its heads.
    """

    name: str
    parameters: int
    image: tuple[int, int]
    layers: dict[str, Layer]
    modules: tuple[str, ...]
    output: tuple[Known, ...]
    pre_norm: tuple[Known, ...]
    heads: tuple[Known, ...]

    @property
    def has_pre_norm(self) -> bool:
        """Whether levels before norm and activation are others than those that the trunk returns."""
        return [known.tap for known in self.pre_norm] != [known.tap for known in self.output]


def list_layers(model: nn.Module, role: str, scale: float = 1.0) -> ModelLayers:
    """Run a model once and list its modules that return a feature map.

    Args:
        model: The detector or segmentor; its state is left as it was.
        role: ``'student'`` or ``'teacher'``, for messages.
        scale: Size of the images that it sees in those of the student.

    Returns:
        Its layers, and what methods know of it by name.

    Raises:
        DistillError: If the model cannot be run, or returns no feature map.
    """
    seen = observe(model, role)
    taps = taps_of(model, seen).seen_at(scale)
    layers = _layers(seen, taps)
    return ModelLayers(
        name=type(model).__name__,
        parameters=_count(model),
        image=seen.watch.size,
        layers=layers,
        modules=tuple(path for path in seen.watch.modules if path),
        output=tuple(_level(seen, tap, f'{seen.trunk} level') for tap in taps.output),
        pre_norm=tuple(_level(seen, tap, 'pre_norm level') for tap in taps.pre_norm),
        heads=(*_maps(seen, taps), *_boxes(seen, taps, layers)),
    )


def _layers(seen: Observation, taps: ModelTaps) -> dict[str, Layer]:
    """The layers in the order in which they ran, each before what it holds."""
    started: dict[str, int] = {}
    # A module is done after those that it holds, so it began when the first of them ended.
    for index, path in enumerate(seen.watch.results):
        parts = path.split('.')
        for depth in range(len(parts)):
            started.setdefault('.'.join(parts[: depth + 1]), index)
    return {
        path: Layer(
            path=path,
            kind=type(seen.watch.modules[path]).__name__,
            shapes=tuple(map(_shape, seen.watch.results[path])),
            strides=tuple(tap.stride for tap in taps.modules[path]),
            parameters=_count(seen.watch.modules[path]),
        )
        for path in sorted(taps.modules, key=lambda path: (started[path], path.count('.')))
    }


def _level(seen: Observation, tap: Tap, name: str) -> Known:
    """A level with the outermost layer of the trunk that returned it."""
    feature = _value(seen, tap)
    inside = [path for path, _ in seen.watch.origins_of(feature) if path.startswith(f'{seen.trunk}.')]
    path = tap.source
    if tap.data_idx is not None:
        path = inside[-1] if inside else ''
    return Known(name, path, (_shape(feature),), (tap.stride,), tap=tap)


def _maps(seen: Observation, taps: ModelTaps) -> list[Known]:
    """Logits and features of the heads of a segmentor."""
    heads: list[tuple[str, HeadTaps]] = [('decode head', taps.decode_head)] if taps.decode_head else []
    heads += [('auxiliary', head) for head in taps.auxiliary_heads]
    found = []
    for name, head in heads:
        for what, tap in (('feature', head.feature), ('logits', head.logits)):
            if tap is not None:
                path = tap.source if tap.source in taps.modules else ''
                found.append(Known(f'{name} {what}', path, (_shape(_value(seen, tap)),), (tap.stride,), tap=tap))
    return found


def _boxes(seen: Observation, taps: ModelTaps, layers: dict[str, Layer]) -> list[Known]:
    """The box heads of a detector and what they return."""
    found = []
    dense = taps.dense_head
    if dense is not None:
        found.append(Known('dense head', text=_words(dense)))
        if dense.samples:
            # An anchor head returns a map per level of each.
            outputs = zip(('dense head logits', 'dense head boxes'), seen.watch.results.get(dense.path, [()])[-1])
            found += [
                Known(name, path, layers[path].shapes, layers[path].strides)
                for name, maps in outputs
                for path in _makers(seen, maps, dense.path)
                if path in layers
            ]
    if taps.anchor_strides:
        found.append(Known('anchors', text=_anchors(dense, taps.anchor_strides)))
    if taps.roi_head is not None:
        found.append(Known('RoI head', text=_words(taps.roi_head)))
    return found


def _makers(seen: Observation, maps: Iterable[Tensor], head: str) -> list[str]:
    """The outermost layers of a head that returned some maps, each once."""
    found = {}
    for tensor in maps:
        inside = [path for path, _ in seen.watch.origins_of(tensor) if path.startswith(f'{head}.')]
        found.update(dict.fromkeys(inside[-1:]))
    return list(found)


def _words(head: BoxHead) -> str:
    """A box head in words."""
    if not head.samples:
        return head.name
    kind = 'sigmoid' if head.sigmoid else 'softmax'
    return f'{head.name}, {head.columns} {kind} column{"" if head.columns == 1 else "s"}'


def _anchors(head: BoxHead | None, strides: tuple[int, ...]) -> str:
    """The anchors of a detector in words."""
    counts = {len(level.boxes) for level in head.anchors} if head is not None else set()
    number = f'{counts.pop()} a cell ' if len(counts) == 1 else ''
    return f'{number}at strides {", ".join(map(str, strides))}'


def _value(seen: Observation, tap: Tap) -> Tensor:
    """The map that was seen at a tap."""
    output = seen.watch.results[tap.source][tap.record_idx]
    return output if is_map(output) else output[tap.data_idx or 0]


def _shape(feature: Tensor) -> tuple[int, ...]:
    return tuple(feature.shape[1:])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
