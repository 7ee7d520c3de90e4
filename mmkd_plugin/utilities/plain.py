"""Batches and configs as plain containers, which a file can hold and nobody needs to run code to read."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor

_KIND = '__structure__'
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    'mmdet.structures.mask.BitmapMasks': ('masks', 'height', 'width'),
    'mmdet.structures.mask.PolygonMasks': ('masks', 'height', 'width'),
    'mmdet.structures.bbox.HorizontalBoxes': ('tensor',),
}
"""What is built by calling its class, and with which of its attributes."""

_ELEMENTS = (
    *(f'mmengine.structures.{name}' for name in ('BaseDataElement', 'InstanceData', 'LabelData', 'PixelData')),
    *(f'mmdet.structures.{name}' for name in ('DetDataSample', 'ReIDDataSample', 'TrackDataSample')),
    'mmseg.structures.SegDataSample',
)
"""MMEngine's data elements, which take their fields one by one."""


def to_plain(item: Any) -> Any:
    """Write a batch or a config in plain containers.

    Args:
        item: Nested dicts, lists and tuples of numbers, texts, tensors, arrays, and the data samples, masks and boxes
            of the OpenMMLab packages. A class or function becomes its full name, by which a registry finds it.

    Returns:
        The same with dicts in place of the structures; tensors are copies on the host.

    Raises:
        TypeError: Naming the type of what cannot be written so.
    """
    if item is None or type(item) in (bool, int, float, complex, str, bytes):
        return item
    if isinstance(item, Tensor):
        return item.detach().cpu().clone()
    if isinstance(item, (np.ndarray, np.generic)) and not item.dtype.hasobject:
        return item
    if isinstance(item, dict):
        return {to_plain(key): to_plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return (list if isinstance(item, list) else tuple)(to_plain(each) for each in item)
    name = _name_of(type(item))
    if name in _ATTRIBUTES:
        return {_KIND: name, 'arguments': [to_plain(getattr(item, key)) for key in _ATTRIBUTES[name]]}
    if name:
        names: list[str] = list(item.keys())
        fields = {key: to_plain(getattr(item, key)) for key in names}
        return {_KIND: name, 'meta': to_plain(item.metainfo), 'fields': fields}
    if hasattr(item, '__qualname__') and hasattr(item, '__module__'):
        return f'{item.__module__}.{item.__qualname__}'
    raise TypeError(f'{type(item).__module__}.{type(item).__qualname__}')


def from_plain(item: Any) -> Any:
    """Undo :func:`to_plain`; nothing is built but the structures listed in this module.

    Raises:
        TypeError: If another structure is asked for.
    """
    if isinstance(item, dict) and _KIND in item:
        name = item[_KIND]
        if name in _ATTRIBUTES:
            return _class(name)(*from_plain(item['arguments']))
        if name not in _ELEMENTS:
            raise TypeError(str(name))
        element = _class(name)(metainfo=from_plain(item['meta']))
        for key, value in item['fields'].items():
            setattr(element, key, from_plain(value))
        return element
    if isinstance(item, dict):
        return {key: from_plain(value) for key, value in item.items()}
    if type(item) in (list, tuple):
        return type(item)(from_plain(each) for each in item)
    return item


def elements_of(item: Any) -> list[BaseDataElement]:
    """The outermost data elements of a nested batch, one for each image."""
    if isinstance(item, BaseDataElement):
        return [item]
    if isinstance(item, dict):
        item = list(item.values())
    return [found for each in item for found in elements_of(each)] if isinstance(item, (list, tuple)) else []


def _name_of(kind: type) -> str:
    """Under which of the listed names a class goes; empty for none."""
    for name in (*_ATTRIBUTES, *_ELEMENTS):
        # Only the package that made the object is imported, which it is already.
        same = name.rsplit('.', 1)[1] == kind.__name__ and kind.__module__.split('.')[0] == name.split('.')[0]
        if same and _class(name) is kind:
            return name
    return ''


def _class(name: str) -> Any:
    module, _, kind = name.rpartition('.')
    return getattr(importlib.import_module(module), kind)
