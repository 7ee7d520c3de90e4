"""Settings: what a user may write, read from the class that takes it, and checked in one place.

A class says in its constructor, or in the fields of a dataclass, which settings it takes: their names, types, defaults
and ranges; its docstring says what they mean. Everything else, the parser of the ``distill`` block and the tables of
the documentation, reads them from there.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import re
import types
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, TypeVar, Union

from typing_extensions import Annotated, get_args, get_origin, get_type_hints

from mmkd_plugin.errors import DistillError, nearest

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Above:
    """Numbers above a bound."""

    bound: float

    def __contains__(self, value: float) -> bool:
        return value > self.bound

    def __str__(self) -> str:
        return f'above {self.bound:g}'


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """Numbers not below a bound."""

    bound: float

    def __contains__(self, value: float) -> bool:
        return value >= self.bound

    def __str__(self) -> str:
        return f'of at least {self.bound:g}'


@dataclasses.dataclass(frozen=True)
class Within:
    """Numbers between two bounds, both allowed."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f'from {self.low:g} to {self.high:g}'


@dataclasses.dataclass(frozen=True)
class PowerOf:
    """Powers of a whole number, such as 2, 1 and 0.5."""

    base: int

    def __contains__(self, value: float) -> bool:
        return value > 0 and value == self.base ** float(round(math.log(value, self.base)))

    def __str__(self) -> str:
        return f'that is a power of {self.base}'


@dataclasses.dataclass(frozen=True)
class Role:
    """What a number does, for those who ask whether a term of a loss is there at all."""

    name: str


WEIGHS, SHARES = Role('weighs a term; 0 leaves it out'), Role('the share of the hard loss; 1 leaves the soft term out')

Positive = Annotated[float, Above(0)]
"""A number above 0."""
Factor = Annotated[float, AtLeast(0)]
"""A number that multiplies."""
Weight = Annotated[float, AtLeast(0), WEIGHS]
"""The weight of one term among several."""
Share = Annotated[float, Within(0, 1), SHARES]
"""The share of the student's own loss, the rest of which the teacher's has."""
Count = Annotated[int, AtLeast(1)]
"""A whole number of things, at least one."""

_RANGES = (Above, AtLeast, Within, PowerOf)
_REQUIRED = inspect.Parameter.empty
_SPELLED: Dict[Any, str] = {
    Any: 'value',
    bool: 'True or False',
    dict: 'dict',
    float: 'number',
    int: 'whole number',
    str: 'text',
    type(None): 'None',
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: As the user writes it.
        hint: Its type, with its range.
        default: What it is if nothing is written; ``Setting.REQUIRED`` where it must be given.
        meaning: What it does, in the words of the docstring.
    """

    name: str
    hint: Any
    default: Any
    meaning: str

    REQUIRED = _REQUIRED

    def has(self, role: Role) -> bool:
        """Whether the number has a role."""
        options = get_args(self.hint) if is_union(get_origin(self.hint)) else (self.hint,)
        return any(role in getattr(option, '__metadata__', ()) for option in options)


@functools.lru_cache(maxsize=None)
def settings_of(cls: type) -> Dict[str, Setting]:
    """The settings of a class: the fields of a dataclass, or the arguments of a constructor.

    Args:
        cls: The class; what has no type hint is taken as it is.

    Returns:
        The settings by name, in the order of the constructor.
    """
    meanings = _meanings(cls)
    if dataclasses.is_dataclass(cls):
        hints = _hints(cls)
        found = [(field.name, _default(field)) for field in dataclasses.fields(cls) if field.init]
    else:
        hints, defaults = _arguments(cls)
        found = list(defaults.items())
    return {name: Setting(name, hints.get(name, Any), default, meanings.get(name, '')) for name, default in found}


def checked(constructor: Callable) -> Callable:
    """Let a constructor refuse what its own settings do not allow.

    Args:
        constructor: ``__init__`` of a class with type hints.

    Returns:
        The constructor; it raises :class:`DistillError` on a wrong type or a number out of range.
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs).arguments
        hints = _hints(constructor)
        for name in [item.name for item in _named(signature)]:
            if name in given and name in hints:
                check(given[name], hints[name], f'{type(self).__name__}.{name}')
        constructor(self, *args, **kwargs)

    return wrapped


def from_dict(cls: Type[T], values: Dict[str, Any], where: str, renamed: Optional[Dict[str, str]] = None) -> T:
    """Build a dataclass from a dict, refusing unknown keys and values that it does not take.

    Args:
        cls: The dataclass.
        values: Its fields by name; ``_scope_``, which MMEngine adds, is passed over.
        where: Path of the dict in the config, for messages.
        renamed: What to write instead of names that are no more.

    Returns:
        The instance; whole numbers are taken where the field is a float.

    Raises:
        DistillError: Naming the key, its path and the nearest valid names or what was expected.
    """
    kind: type = cls
    return cls(**check_all(values, settings_of(kind), where, renamed))


def check_all(
    values: Dict[str, Any], settings: Dict[str, Setting], where: str, renamed: Optional[Dict[str, str]] = None
) -> Dict[str, Any]:
    """Check a dict of settings.

    Args:
        values: By name; ``_scope_``, which MMEngine adds, is passed over.
        settings: What may be written.
        where: Path of the dict in the config, for messages.
        renamed: What to write instead of names that are no more.

    Returns:
        The checked values, whole numbers as floats where these are meant.

    Raises:
        DistillError: Naming the key, its path and the nearest valid names or what was expected.
    """
    if not isinstance(values, dict):
        raise DistillError(f'"{where}" is {values!r}; it must be a dict.')
    found = {}
    for key, value in values.items():
        if key == '_scope_':
            continue
        if key not in settings and key in (renamed or {}):
            raise DistillError(f'"{where}.{key}" is now called otherwise; write {(renamed or {})[key]}.')
        if key not in settings:
            raise DistillError(f'"{where}.{key}" is not a key of the distill block: {nearest(str(key), settings)}')
        found[key] = check(value, settings[key].hint, f'{where}.{key}')
    missing = [item for name, item in settings.items() if item.default is _REQUIRED and name not in found]
    if missing:
        raise DistillError(f'"{where}.{missing[0].name}" is missing; it must be {spelled(missing[0].hint)}.')
    return found


def check(value: Any, hint: Any, where: str) -> Any:
    """Return a value in the hinted type, or say what was expected.

    Raises:
        DistillError: If the type is another, or the number is out of range or not finite.
    """
    if not _fits(value, hint):
        close = ''
        if isinstance(value, str):
            texts = [option for option in _literals(hint) if isinstance(option, str)]
            close = f' ({nearest(value, texts)[:-1]})' if 'did you mean' in nearest(value, texts) else ''
        raise DistillError(f'"{where}" is {value!r}; it must be {spelled(hint)}{close}.')
    kinds = [_plain(option) for option in (get_args(hint) if is_union(get_origin(hint)) else (hint,))]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in kinds and int not in kinds else value


def require_finite(value: Any, where: str) -> None:
    """Refuse nan and infinity wherever they are written; ``norm_type`` alone, of clipping, may be infinite.

    Args:
        value: A value, or dicts and lists of them.
        where: Its place in the config, for messages.

    Raises:
        DistillError: Naming the place.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if key != 'norm_type':
                require_finite(item, f'{where}.{key}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            require_finite(item, f'{where}[{index}]')
    elif isinstance(value, float) and not math.isfinite(value):
        raise DistillError(f'"{where}" is {value}; it must be a finite number.')


def spelled(hint: Any) -> str:
    """A type hint in words, its range included."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return ' '.join([spelled(arguments[0]), *(str(item) for item in arguments[1:] if isinstance(item, _RANGES))])
    if str(origin).endswith('typing.Literal') or str(origin) == 'typing_extensions.Literal':
        return ' or '.join(repr(option) for option in arguments)
    if is_union(origin):
        return ' or '.join(spelled(option) for option in arguments)
    if _is_sequence(origin):
        items = [item for item in arguments if item is not Ellipsis]
        count = f'{len(items)} items' if origin is tuple and Ellipsis not in arguments else 'items'
        return f'a list of {count}, each {spelled(items[0])}' if items and items[0] is not Any else 'a list'
    words = _SPELLED.get(origin or hint, 'list' if _is_sequence(hint) else getattr(hint, '__name__', str(hint)))
    return words if words in ('None', 'True or False') else f'a {words}'


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        ranges = [item for item in arguments[1:] if isinstance(item, _RANGES)]
        return _fits(value, arguments[0]) and all(value in allowed for allowed in ranges)
    if is_union(origin):
        return any(_fits(value, option) for option in arguments)
    if _literals(hint):
        return any(value == option and type(value) is type(option) for option in arguments)
    if _is_sequence(origin or hint):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and Ellipsis not in arguments:
            return len(value) == len(arguments) and all(_fits(item, each) for item, each in zip(value, arguments))
        return not arguments or all(_fits(item, arguments[0]) for item in value)
    kind = origin or hint
    if kind in (float, int):
        numbers = (int, float) if kind is float else (int,)
        return isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _plain(hint: Any) -> Any:
    """A hint without its range."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _literals(hint: Any) -> Tuple[Any, ...]:
    """All words that a hint allows."""
    if 'Literal' in str(get_origin(hint)):
        return get_args(hint)
    if is_union(get_origin(hint)):
        return tuple(option for item in get_args(hint) for option in _literals(item))
    return ()


def is_union(origin: Any) -> bool:
    """Whether the origin of a type hint says that it takes one of several types."""
    return origin is Union or origin is getattr(types, 'UnionType', Union)


def _is_sequence(kind: Any) -> bool:
    return kind in (list, tuple, collections.abc.Sequence)


def _hints(owner: Any) -> Dict[str, Any]:
    """The type hints of a class or a function; none where they are for type checkers, or a newer Python, alone."""
    try:
        return get_type_hints(owner, include_extras=True)
    except (AttributeError, NameError, TypeError):
        return {}


def _arguments(cls: type) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Hints and defaults of a constructor's arguments, with those that its ``**kwargs`` hand on to the next class."""
    hints: Dict[str, Any] = {}
    defaults: Dict[str, Any] = {}
    for base in cls.__mro__:
        constructor: Any = vars(base).get('__init__')
        if constructor is None or base is object:
            continue
        signature = inspect.signature(constructor)
        for item in _named(signature)[1:]:
            if item.name not in defaults:
                defaults[item.name] = item.default
                hints[item.name] = _hints(inspect.unwrap(constructor)).get(item.name, Any)
        if not any(item.kind is item.VAR_KEYWORD for item in signature.parameters.values()):
            break
    return hints, defaults


def _named(signature: inspect.Signature) -> List[inspect.Parameter]:
    """The parameters that take one argument each."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [item for item in signature.parameters.values() if item.kind not in several]


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return _REQUIRED if field.default_factory is dataclasses.MISSING else field.default_factory()


def _meanings(cls: type) -> Dict[str, str]:
    """What docstrings say of the arguments or attributes of a class and its bases."""
    found: Dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section, name = '', ''
        lines: List[str] = inspect.cleandoc(base.__dict__.get('__doc__') or '').splitlines()
        for line in lines:
            heading = re.match(r'(\w+):$', line)
            entry = re.match(r'    (\w+): (.*)', line)
            if heading:
                section = heading[1]
            elif section in ('Args', 'Attributes') and entry:
                name, found[entry[1]] = entry[1], entry[2]
            elif section in ('Args', 'Attributes') and name and line.startswith('        '):
                found[name] += ' ' + line.strip()
            elif line.strip():
                section = '' if not line.startswith(' ') else section
    return found
