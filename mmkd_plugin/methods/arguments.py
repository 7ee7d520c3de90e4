"""Check the arguments of classes that are not ours: a loss, a connector, an optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Dict, List, Tuple

from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS, Registry
from typing_extensions import get_args, get_origin

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.utilities.settings import Setting, is_union, settings_of

_KINDS: Dict[type, Tuple[Tuple[type, ...], str]] = {
    bool: ((bool,), 'True or False'),
    int: ((int, float), 'a number'),
    float: ((int, float), 'a number'),
    str: ((str,), 'a text'),
}
"""What is taken for an argument of a simple type, and how it is called; other packages are not exact about numbers."""
_SCHEDULER_KEYS = ('by_epoch', 'convert_to_iter_based')
"""What MMEngine's runner reads of a schedule besides the arguments of its class."""


def require_arguments(part: type, config: Mapping[str, Any], where: str) -> None:
    """Refuse a config that the class cannot be built from.

    Args:
        part: The class.
        config: Its arguments, and the ``type``.
        where: Place of the config, for messages.

    Raises:
        DistillError: If an argument is unknown or missing, or of another type where the class takes a simple one.
    """
    parameters = inspect.signature(part).parameters.values()
    named = {item.name: item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)}
    for key in config:
        if key not in ('type', *named) and not _takes_anything(part):
            raise DistillError(f'"{where}.{key}" is no argument of {part.__name__}: {nearest(key, named)}')
    for key, item in named.items():
        if item.default is item.empty and key not in config:
            raise DistillError(f'"{where}.{key}" is missing; {part.__name__} cannot be built without it.')
    _require_types(settings_of(part), config, where)


def require_optimizer(config: Any, where: str) -> None:
    """Refuse the config of an optimizer that cannot be built.

    Args:
        config: What the user wrote; the parameters are not part of it.
        where: Its place in the config, for messages.

    Raises:
        DistillError: On an unknown type or key, or a plainly wrong type of value.
    """
    _require_buildable(config, OPTIMIZERS, where, given=('params',), example="dict(type='SGD', lr=4e-4)")
    # The optimizers of older torch have neither a hint nor a number as the default there.
    if isinstance(config.get('lr'), str):
        raise DistillError(f'"{where}.lr" is {config["lr"]!r}; it must be a number.')


def require_optim_wrapper(config: Any, where: str) -> None:
    """Refuse further keys of an optimizer wrapper that it does not have; see :func:`require_optimizer`."""
    written = {key: value for key, value in config.items() if key != 'type'}
    kind = config.get('type', 'OptimWrapper')
    _require_buildable(dict(written, type=kind), OPTIM_WRAPPERS, where, given=('optimizer',))


def require_param_scheduler(config: Any, where: str) -> None:
    """Refuse a schedule, or a list of them, that cannot be built; see :func:`require_optimizer`."""
    several = isinstance(config, (list, tuple))
    for index, item in enumerate(config if several else [] if config is None else [config]):
        place = f'{where}[{index}]' if several else where
        example = "dict(type='PolyLR', power=0.9, by_epoch=False)"
        _require_buildable(item, PARAM_SCHEDULERS, place, ('optimizer',), example, _SCHEDULER_KEYS)


def _require_buildable(
    config: Any,
    registry: Registry,
    where: str,
    given: Tuple[str, ...] = (),
    example: str = '',
    also: Tuple[str, ...] = (),
) -> None:
    """Check type and arguments of what a registry builds.

    Args:
        config: What the user wrote.
        registry: Where its type is looked up.
        where: Its place in the config, for messages.
        given: Arguments that the program fills in.
        example: A config that is right.
        also: Keys that are read before the class is built.
    """
    if not isinstance(config, Mapping) or 'type' not in config:
        raise DistillError(f'"{where}" is {config!r}; it must be a dict with a "type", for instance {example}.')
    kind = part = config['type']
    if not isinstance(kind, type):
        with registry.switch_scope_and_registry(config.get('_scope_')) as home:
            try:
                part = home.get(str(kind))
            # MMEngine raises it for the path of what a module does not have.
            except RuntimeError:
                part = None
    if not isinstance(part, type):
        known = [name for each in (registry, *registry.children.values()) for name in each.module_dict]
        raise DistillError(f'"{where}.type" is {kind!r}, which is no {registry.name}: {nearest(str(kind), known)}')
    settings = {name: item for name, item in settings_of(part).items() if name not in given}
    # What MMEngine's classes do not name themselves their bases do; with others nobody knows.
    strict = part.__module__.startswith('mmengine.') or not _takes_anything(part)
    for key in config:
        if strict and key not in ('type', '_scope_', *settings, *also):
            raise DistillError(f'"{where}.{key}" is no argument of {part.__name__}: {nearest(str(key), settings)}')
    _require_types(settings, config, where)


def _takes_anything(part: type) -> bool:
    """Whether a class takes arguments of any name."""
    return any(item.kind is item.VAR_KEYWORD for item in inspect.signature(part).parameters.values())


def _require_types(settings: Mapping[str, Setting], config: Mapping[str, Any], where: str) -> None:
    """Refuse values of a plainly other type than an argument's hint, or its default where it has no hint."""
    for key, setting in settings.items():
        value = config.get(key)
        if value is None:
            continue
        taken = _taken(setting)
        accepted = tuple(kind for option in taken for kind in _KINDS.get(option, ((option,), ''))[0])
        if accepted and not isinstance(value, accepted):
            words = ' or '.join(_KINDS[simple][1] for simple in taken if simple in _KINDS)
            raise DistillError(f'"{where}.{key}" is {value!r}; it must be {words}.')


def _taken(setting: Setting) -> List[type]:
    """The types that an argument takes besides None; empty where it takes no simple one, or what is no plain class."""
    if setting.hint is Any:
        found = [type(setting.default)]
    else:
        found = list(get_args(setting.hint)) if is_union(get_origin(setting.hint)) else [setting.hint]
        found = [option for option in found if option is not type(None)]
    plain = all(isinstance(option, type) and get_origin(option) is None for option in found)
    return found if plain and any(option in _KINDS for option in found) else []
