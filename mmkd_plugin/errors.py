"""The error a user can act on, and the wording that several places share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DistillError(ValueError):
    """A mistake in a config, a checkpoint or a data set, told in one sentence that names the fix."""


def nearest(name: str, options: Iterable[str], count: int = 3) -> str:
    """Name the options closest to a mistyped name.

    Args:
        name: What the user wrote.
        options: All valid names.
        count: How many names at the most.

    Returns:
        ``'did you mean "a" or "b"?'``, or the list of valid names where none is close.
    """
    known = sorted(set(options))
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    if not close:
        tail = name.rsplit('.', 1)[-1]
        close = [option for option in known if option.rsplit('.', 1)[-1] == tail][:count]
    if close:
        return 'did you mean ' + ' or '.join(f'"{option}"' for option in close) + '?'
    shown = ', '.join(f'"{option}"' for option in known[:20])
    return f'valid names are {shown}' + (', ...' if len(known) > 20 else '') + '.'
