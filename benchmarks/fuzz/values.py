"""Values for settings: right ones, read from their hints, and strange ones."""

from __future__ import annotations

import random
import string
from typing import Any, Literal, get_args, get_origin

from typing_extensions import get_args as all_args
from typing_extensions import get_origin as any_origin

from mmkd_plugin.distillers.schedule import WeightSchedule
from mmkd_plugin.methods import Method
from mmkd_plugin.utilities.settings import Setting, is_union, settings_of

STRANGE: tuple[Any, ...] = (
    None,
    float('nan'),
    float('inf'),
    -float('inf'),
    -1,
    -0.5,
    0,
    1e-30,
    1e30,
    10**9,
    True,
    False,
    '1',
    '',
    'none',
    [],
    {},
    (1, 2, 3),
    ['a'],
    dict(type='FGD'),
    [None],
)
"""What a user may write by mistake, in place of anything."""

_NUMBERS = (0.001, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 4.0, 50.0)
_WHOLE = (0, 1, 2, 3, 8, 16)


def right_value(draw: random.Random, setting: Setting) -> Any:
    """A value that a setting takes; its default where nothing is known of it."""
    return _of_hint(draw, setting.hint, setting.default)


def _of_hint(draw: random.Random, hint: Any, default: Any) -> Any:
    origin, arguments = any_origin(hint), all_args(hint)
    if 'Annotated' in str(origin) or hasattr(hint, '__metadata__'):
        ranges = [item for item in arguments[1:] if hasattr(item, '__contains__')]
        numbers = _WHOLE if arguments[0] is int else _NUMBERS
        allowed = [number for number in numbers if all(number in limit for limit in ranges)]
        return draw.choice(allowed) if allowed else default
    if 'Literal' in str(origin):
        return draw.choice(arguments)
    if hint is bool:
        return draw.random() < 0.5
    if hint in (int, float):
        return draw.choice(_WHOLE if hint is int else _NUMBERS)
    if is_union(get_origin(hint)) and (type(None) in get_args(hint) or Literal['auto'] in get_args(hint)):
        options = [item for item in get_args(hint) if item is not type(None)]
        return _of_hint(draw, draw.choice(options), default)
    return default


def right_method(draw: random.Random, kind: type[Method]) -> dict[str, Any]:
    """Some settings of a method, right in themselves."""
    alone = ('teacher', 'schedules', 'patch', 'share')
    settings = {name: item for name, item in kind.settings().items() if name not in alone}
    chosen = draw.sample(list(settings), k=draw.randrange(min(4, len(settings)) + 1))
    values = {
        name: right_schedule(draw) if name == 'schedule' else right_value(draw, settings[name]) for name in chosen
    }
    return {'type': kind.__name__, **values}


def right_schedule(draw: random.Random) -> dict[str, Any]:
    """A schedule that lets something happen in a run of two steps."""
    return draw.choice(
        [
            {},
            dict(warm_up=2),
            dict(start=1),
            dict(stop=1),
            dict(decay='cosine'),
            dict(decay='linear', end=2, final=0.5),
            dict(warm_up=1, decay='linear'),
        ]
    )


def wrong_schedule(draw: random.Random) -> dict[str, Any]:
    """A schedule with which nothing happens in a run of two steps, or that means nothing."""
    return draw.choice(
        [
            dict(start=5000),
            dict(start=2),
            dict(start=-1),
            dict(start='1'),
            dict(stop=0),
            dict(end=10),
            dict(decay='exponential'),
            dict(decay='linear', end=0),
            dict(start=3, stop=2),
            dict(final=2.0, decay='linear'),
            dict(warm_up=float('nan')),
            dict(start=1, by_epoch=True),
            {typo(draw, draw.choice(list(settings_of(WeightSchedule)))): 1},
        ]
    )


def typo(draw: random.Random, word: str) -> str:
    """A word with one slip of the hand in it."""
    while True:
        at = draw.randrange(len(word))
        letter = draw.choice(string.ascii_lowercase)
        slip = draw.choice(
            (
                word[:at] + word[at + 1 :],
                word[:at] + letter + word[at:],
                word[:at] + letter + word[at + 1 :],
                word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            )
        )
        if slip not in (word, ''):
            return slip
