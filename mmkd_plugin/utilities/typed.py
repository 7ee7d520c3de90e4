"""Turn plain config dicts into checked dataclasses."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mmkd_plugin.errors import DistillError, nearest

T = TypeVar('T')


def from_dict(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a dataclass from a dict, refusing unknown keys and values of a wrong type.

    Args:
        cls: The dataclass.
        values: Its fields by name; ``_scope_``, which MMEngine adds, is passed over.
        where: Path of the dict in the config, for messages.

    Returns:
        The instance; whole numbers are taken where the field is a float.

    Raises:
        DistillError: Naming the key, its path and the nearest valid names or the type expected.
    """
    hints = get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        if key == '_scope_':
            continue
        if key not in fields:
            raise DistillError(f'"{where}.{key}" is not a key of the distill block: {nearest(key, fields)}')
        checked[key] = _check(value, hints[key], f'{where}.{key}')
    return cls(**checked)


def _check(value: Any, hint: Any, where: str) -> Any:
    """Return the value in the hinted type, or say what was expected."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not _fits(value, hint):
        raise DistillError(f'"{where}" is {value!r}; it must be {_spelled(hint)}.')
    return value


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType if hasattr(types, 'UnionType') else Union):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is not None and str(origin) == 'typing.Literal':
        return any(value == option and type(value) is type(option) for option in get_args(hint))
    kind = origin or hint
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _spelled(hint: Any) -> str:
    """A type hint in words."""
    arguments = get_args(hint)
    if str(get_origin(hint)) == 'typing.Literal':
        return ' or '.join(repr(option) for option in arguments)
    if arguments and get_origin(hint) not in (dict, list, tuple):
        return ' or '.join(_spelled(option) for option in arguments)
    names = {float: 'a number', int: 'a whole number', str: 'a text', bool: 'True or False', dict: 'a dict'}
    return names.get(get_origin(hint) or hint, 'None' if hint is type(None) else str(hint))
