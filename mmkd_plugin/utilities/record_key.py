"""Which image a data sample shows, and how it was turned: what a teacher's stored records are found by."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional, Tuple

_MARK = 'record_key'

DIRECTIONS = ('horizontal', 'vertical', 'diagonal')
"""How an image may be flipped."""


class ImageKey(NamedTuple):
    """An image as a pipeline gave it.

    Attributes:
        path: Of its file.
        size: Bytes of that file.
        changed: When it was last changed, in nanoseconds.
        flip: Its direction, empty where it is not flipped.
        part: Which of several pipelines it came through; empty where there is one.
    """

    path: str
    size: int
    changed: int
    flip: str = ''
    part: str = ''


def image_key(path: str, flip: str = '', part: str = '') -> ImageKey:
    """The key of an image file as it is now.

    Args:
        path: Of the file.
        flip: Its direction, empty for none.
        part: Which of several pipelines it goes through.

    Raises:
        OSError: If there is no such file.
    """
    found = os.stat(path)
    return ImageKey(path, found.st_size, found.st_mtime_ns, flip, part)


def set_image_key(sample: Any, key: ImageKey) -> None:
    """Write a key into the meta information of a data sample."""
    sample.set_metainfo({_MARK: tuple(key)})


def get_image_key(sample: Any) -> Optional[ImageKey]:
    """The key that :func:`set_image_key` wrote, None where there is none."""
    found: Optional[Tuple[Any, ...]] = getattr(sample, 'metainfo', {}).get(_MARK)
    return None if found is None else ImageKey(*found)
