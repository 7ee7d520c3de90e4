"""What the probe found in a teacher, as JSON, so that a run that reads all of its records need not build it."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmkd_plugin.probe.boxes import AnchorLevel, BoxHead
from mmkd_plugin.probe.maps import HeadTaps
from mmkd_plugin.probe.models import ModelTaps
from mmkd_plugin.probe.taps import Tap

_PARTS: dict[type, dict[str, type]] = {
    ModelTaps: dict(
        output=Tap,
        pre_norm=Tap,
        backbone=Tap,
        modules=Tap,
        decode_head=HeadTaps,
        auxiliary_heads=HeadTaps,
        dense_head=BoxHead,
        roi_head=BoxHead,
    ),
    HeadTaps: dict(logits=Tap, feature=Tap),
    BoxHead: dict(anchors=AnchorLevel),
}
"""The fields that hold structures of their own, alone, in tuples or in dicts of tuples."""


def described(taps: ModelTaps) -> dict[str, Any]:
    """Write taps in JSON's types."""
    return dataclasses.asdict(taps)


def from_description(values: Any) -> ModelTaps:
    """Undo :func:`described`.

    Raises:
        ValueError: If something is missing, too much or of another type.
    """
    return _built(ModelTaps, values)


def _built(kind: type, values: Any) -> Any:
    """One structure."""
    known: Any = kind
    if not isinstance(values, dict) or set(values) != {field.name for field in dataclasses.fields(known)}:
        raise ValueError(f'{kind.__name__} has other fields')
    parts = _PARTS.get(kind, {})
    return kind(**{key: _part(parts[key], item) if key in parts else _plain(item) for key, item in values.items()})


def _part(kind: type, value: Any) -> Any:
    """What a field holds that has structures."""
    if isinstance(value, list):
        return tuple(_built(kind, item) for item in value)
    if isinstance(value, dict) and kind is Tap and 'source' not in value:
        return {str(key): _part(kind, item) for key, item in value.items()}
    return None if value is None else _built(kind, value)


def _plain(value: Any) -> Any:
    """A number, a text, or tuples of them."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f'{type(value).__name__} is no plain value')
