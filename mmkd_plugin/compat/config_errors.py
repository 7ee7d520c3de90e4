"""What MMEngine says when configs do not fit each other, told with the fix."""

from __future__ import annotations

import re

from mmkd_plugin.compat.unread_block import BLOCK, BLOCK_KEYS
from mmkd_plugin.errors import DistillError

_KEYS = (BLOCK, *BLOCK_KEYS, 'adapt', 'tap', 'schedule', 'schedules')
"""Keys of a block that a dict may stand under."""


def retell(error: Exception) -> None:
    """Tell an error that concerns a ``distill`` block in a sentence of ours; others stay MMEngine's.

    Args:
        error: What MMEngine raised while it read or merged configs.

    Raises:
        DistillError: Naming the fix.
    """
    text = str(error.args[0]) if error.args else ''
    if isinstance(error, KeyError) and 'Duplicate key' in text and f"'{BLOCK}'" in text:
        raise DistillError(
            'Two files of one _base_ bring a distill block each, and MMEngine takes a key from one of them alone; '
            'inherit one recipe (not again where another base has it already) and write the second method beside it, '
            "for instance distill=dict(methods=dict(pkd=dict(type='Feature', loss=dict(type='PKDLoss'))))."
        ) from error
    key = re.match(r'(\w+)=', text)
    if isinstance(error, TypeError) and key and key[1] in _KEYS and 'cannot inherit from base' in text:
        raise DistillError(
            f'"{key[1]}" is a dict here, but no dict in the config that it is inherited from or merged into; write '
            f'{key[1]}=dict(_delete_=True, ...) to replace it as a whole.'
        ) from error
