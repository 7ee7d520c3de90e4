"""Find methods, losses and connectors by the names that a config gives them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Optional, Union

from mmengine.registry import MODELS as ROOT_MODELS

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import METHODS, MODELS


def find_method(kind: Union[str, type], where: str) -> type:
    """The class of a method.

    Args:
        kind: The class, its registered name, or that name behind the package it comes from.
        where: Place in the config, for messages.

    Returns:
        The class.

    Raises:
        DistillError: If there is none of that name.
    """
    if isinstance(kind, type):
        return kind
    METHODS.import_from_location()
    found = _find(str(kind), METHODS.module_dict)
    if found is None:
        raise DistillError(
            f'"{where}" is {kind!r}, which is no method{_import_advice(str(kind))}: '
            + nearest(_last(kind), known_methods())
        )
    return found


def known_methods() -> Mapping[str, type]:
    """All methods that are registered, by name."""
    METHODS.import_from_location()
    return dict(sorted(METHODS.module_dict.items()))


def find_part(kind: Union[str, type], where: str, folder: str) -> type:
    """The class of a loss or a connector; one without a scope is looked up in the plugin, then in MMRazor.

    Args:
        kind: The class, its registered name, or that name behind a scope or the package it comes from.
        where: Place in the config, for messages.
        folder: ``'losses'`` or ``'connectors'``.

    Returns:
        The class.

    Raises:
        DistillError: If there is none of that name.
    """
    if isinstance(kind, type):
        return kind
    name = str(kind)
    for full in [name] if '.' in name else [f'mmkd_plugin.{name}', f'mmrazor.{name}', name]:
        found = _get(full)
        if found is not None:
            return found
    for registry in (MODELS, ROOT_MODELS, *ROOT_MODELS.children.values()):
        found = _find(name, registry.module_dict)
        if found is not None and '.' in name:
            return found
    known = {**ROOT_MODELS.module_dict, **ROOT_MODELS.children['mmrazor'].module_dict, **MODELS.module_dict}
    options = [key for key, value in known.items() if _is_one(value, folder)]
    raise DistillError(
        f'"{where}" is {kind!r}, which is none of the {folder}{_import_advice(name)}: {nearest(_last(kind), options)}'
    )


def full_name(part: type) -> str:
    """Name under which every scope finds a class: its registered one, or its path where it has none."""
    for registry in (MODELS, *ROOT_MODELS.children.values(), ROOT_MODELS):
        name = next((key for key, value in registry.module_dict.items() if value is part), None)
        if name is not None:
            return f'{registry.scope}.{name}'
    return f'{part.__module__}.{part.__name__}'


def _import_advice(name: str) -> str:
    """How to make a part of one's own known."""
    package = name.partition('.')[0] if '.' in name else '<your package>'
    if package in ('mmkd_plugin', *ROOT_MODELS.children):
        return ''
    return f" (one of your own needs custom_imports=dict(imports=['{package}']))"


def _is_one(part: type, folder: str) -> bool:
    """Whether a registered class is one of the losses or connectors."""
    own = part.__module__.startswith('mmkd_plugin.methods') and folder == 'losses'
    package = part.__module__.partition('.')[0]
    foreign = package not in ('mmkd_plugin', 'mmengine', 'mmcv', 'torch', *ROOT_MODELS.children)
    return own or foreign or f'.{folder}.' in part.__module__


def _get(name: str) -> Optional[type]:
    """A class that MMEngine finds from the plugin's scope."""
    try:
        found = MODELS.get(name)
    # MMEngine raises it for the path of what a module does not have.
    except RuntimeError:
        return None
    return found if isinstance(found, type) else None


def _find(name: str, registered: Mapping[str, type]) -> Optional[type]:
    """A class by its registered name, by that name behind its package, or by its path."""
    if name in registered:
        return registered[name]
    scope, _, last = name.rpartition('.')
    if not scope:
        return None
    here = registered.get(last)
    if here is not None and f'{here.__module__}.'.startswith(f'{scope}.'):
        return here
    try:
        part: Any = getattr(importlib.import_module(scope), last, None)
    except ModuleNotFoundError as error:
        if error.name is not None and f'{scope}.'.startswith(f'{error.name}.'):
            return None
        raise DistillError(f'"{name}" cannot be imported ({error}); mend its package.') from error
    except ImportError as error:
        raise DistillError(f'"{name}" cannot be imported ({error}); mend its package.') from error
    # Names such as "..x", which are no paths.
    except (TypeError, ValueError):
        return None
    return part if isinstance(part, type) else None


def _last(name: Union[str, type]) -> str:
    """A name without its scope."""
    return str(name).rsplit('.', 1)[-1]
