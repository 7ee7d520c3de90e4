"""Files that are whole or not there, whatever stops the process that writes them."""

from __future__ import annotations

import contextlib
import os
import os.path as osp
from collections.abc import Iterator
from pathlib import Path

from mmkd_plugin.errors import DistillError

UNFINISHED = '.unfinished'
"""Ends the name of a file while it is written; one that is left over belongs to a run that was killed."""


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Write a file under another name, and give it its own once all of it is on the disk.

    Args:
        path: The file; an earlier one of that name stays until the new one is whole.

    Yields:
        The name to write to, in the same folder.
    """
    temporary = path + UNFINISHED
    folder = osp.dirname(path)
    try:
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
def output_file(path: Path) -> Iterator[Path]:
    """The same for what a user asks a command to write: folders are made, a link stays one.

    Args:
        path: The file to write.

    Yields:
        The file to write to.

    Raises:
        DistillError: If there can be no such file.
    """
    real = Path(osp.realpath(path))
    if real.is_dir():
        raise DistillError(f'"{path}" is a folder; give the name of a file to write.')
    if real.exists() and not real.is_file():
        raise DistillError(f'"{path}" is a device or a pipe; give the name of a file to write.')
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(str(real)) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise DistillError(
            f'"{path}" cannot be written ({error.strerror or error}); give a place where files can be made.'
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
