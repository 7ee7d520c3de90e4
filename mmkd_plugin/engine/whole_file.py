"""Files that are whole or not there, whatever stops the process that writes them."""

from __future__ import annotations

import contextlib
import errno
import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, Callable

from mmengine.fileio import LocalBackend

from mmkd_plugin.errors import DistillError

UNFINISHED = '.unfinished'
"""Ends the name of a file while it is written; one that is left over belongs to a run that was killed."""
_FULL = (errno.ENOSPC, getattr(errno, 'EDQUOT', errno.ENOSPC))


def is_local(backend: Any) -> bool:
    """Whether one of MMEngine's file backends, or the client around it, writes to a disk of this machine."""
    return isinstance(getattr(backend, 'client', backend), LocalBackend)


@contextlib.contextmanager
def whole_file(path: str, needed: Callable[[], int] | None = None) -> Iterator[str]:
    """Write a file under another name, and give it its own once all of it is on the disk.

    Args:
        path: The file; an earlier one of that name stays until the new one is whole.
        needed: Tells how many bytes are written, for the message where the disk is full.

    Yields:
        The name to write to, in the same folder.

    Raises:
        DistillError: If the disk is full.
    """
    temporary = path + UNFINISHED
    folder = osp.dirname(path)
    try:
        with full_disk(folder, needed):
            yield temporary
            _to_disk(temporary, os.O_RDWR)
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    # The new name lies in the folder; some systems cannot open one, and need not.
    with contextlib.suppress(OSError):
        _to_disk(folder, os.O_RDONLY)


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


def remove_unfinished(folder: str) -> list[str]:
    """Remove what a killed run left half written.

    Args:
        folder: Where checkpoints lie.

    Returns:
        The names of the files.
    """
    found = [name for name in sorted(os.listdir(folder)) if name.endswith(UNFINISHED)] if osp.isdir(folder) else []
    for name in found:
        os.remove(osp.join(folder, name))
    return found


def _to_disk(path: str, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _megabytes(count: int) -> str:
    return f'{count / 1e6:.1f} MB'
