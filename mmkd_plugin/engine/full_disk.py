"""A full disk, told in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os.path as osp
import shutil
import tempfile
from collections.abc import Iterator
from typing import Callable

from mmkd_plugin.errors import DistillError

_FULL = (errno.ENOSPC, getattr(errno, 'EDQUOT', errno.ENOSPC))


@contextlib.contextmanager
def full_disk(folder: str, needed: Callable[[], int] | None = None) -> Iterator[None]:
    """Say in one sentence that the disk is full.

    Args:
        folder: What is written to inside.
        needed: Tells how many bytes are written.

    Raises:
        DistillError: In place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        # Without the number of bytes anything may have been written: the data set's, the evaluator's, the loader's.
        places = [folder] if needed else [folder, tempfile.gettempdir(), '/dev/shm']
        free, place = min((shutil.disk_usage(place).free, place) for place in places if osp.isdir(place))
        size = f', and a checkpoint takes about {_megabytes(needed())}' if needed else ''
        raise DistillError(
            f'The disk is full ({error.strerror}): "{place}" has {_megabytes(free)} left{size}; free some space, and '
            f'go on from the last whole checkpoint in "{folder}" with --resume.'
        ) from error


def _megabytes(count: int) -> str:
    return f'{count / 1e6:.1f} MB'
