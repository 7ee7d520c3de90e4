"""What MMEngine says when configs do not fit each other, told with the fix."""

from __future__ import annotations

import re


def retold(error: Exception) -> str | None:
    """A sentence for an error that concerns a ``distill`` block.

    Args:
        error: What MMEngine raised while it read or merged configs.

    Returns:
        The sentence; None where the error is about something else.
    """
    text = str(error.args[0]) if error.args else ''
    if isinstance(error, KeyError) and 'Duplicate key' in text and "'distill'" in text:
        return (
            'Two files of one _base_ bring a distill block each, and MMEngine takes a key from one of them alone; '
            'inherit one recipe (not again where another base has it already) and write the second method beside it, '
            "for instance distill=dict(methods=dict(pkd=dict(type='Feature', loss=dict(type='PKDLoss'))))."
        )
    key = re.match(r'(\w+)=', text)
    if isinstance(error, TypeError) and key and 'cannot inherit from base' in text:
        return (
            f'"{key[1]}" is a dict here, but no dict in the config that it is inherited from or merged into; write '
            f'{key[1]}=dict(_delete_=True, ...) to replace it as a whole.'
        )
    return None
