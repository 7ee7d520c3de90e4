"""Disks that are full and processes that are killed, at any one of the calls that save a checkpoint."""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, Callable
from unittest import mock

from mmkd_plugin.utilities.files import UNFINISHED

Fault = Callable[[], None]


def disk_full() -> None:
    """What the system says where nothing more fits."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed() -> None:
    """End at once, as SIGKILL does: nothing is tidied up."""
    os._exit(9)


class _Opened:
    """A file whose write may stop in the middle."""

    def __init__(self, file: Any, act: Callable[..., None]) -> None:
        self.file, self.act = file, act

    def write(self, data: Any) -> int:
        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.act('write', half)
        return self.file.write(data)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()
        if error[0] is None:
            self.act('close')


@contextlib.contextmanager
def faults(at: int, fault: Fault) -> Iterator[list[str]]:
    """Let one of the calls that save a checkpoint fail.

    Args:
        at: Which one, counted from 0; one that never comes only counts.
        fault: What happens there; it happens before the call, a write is half done.

    Yields:
        The calls so far, by name.
    """
    acts: list[str] = []

    def act(name: str, before: Fault | None = None) -> None:
        acts.append(name)
        if len(acts) - 1 == at:
            if before is not None:
                before()
            fault()

    real_open, real_fsync, real_replace, real_remove = builtins.open, os.fsync, os.replace, os.remove

    def ours(path: Any) -> bool:
        return isinstance(path, str) and path.endswith((UNFINISHED, '.pth', 'last_checkpoint'))

    def fake_open(path: Any, mode: str = 'r', *args: Any, **kwargs: Any) -> Any:
        if not ours(path) or 'w' not in mode:
            return real_open(path, mode, *args, **kwargs)
        act('open')
        return _Opened(real_open(path, mode, *args, **kwargs), act)

    def fake_fsync(handle: Any) -> None:
        act('fsync folder' if stat.S_ISDIR(os.fstat(handle).st_mode) else 'fsync')
        real_fsync(handle)

    def fake_replace(source: Any, target: Any) -> None:
        act('replace')
        real_replace(source, target)

    def fake_remove(path: Any) -> None:
        if ours(path):
            act('remove')
        real_remove(path)

    with contextlib.ExitStack() as stack:
        for target, fake in (
            ('builtins.open', fake_open),
            ('os.fsync', fake_fsync),
            ('os.replace', fake_replace),
            ('os.remove', fake_remove),
        ):
            stack.enter_context(mock.patch(target, fake))
        yield acts


def in_child(work: Callable[[], None]) -> int:
    """Do something in a copy of this process.

    Args:
        work: What is done there.

    Returns:
        0 where it ended well, 9 where it was killed, 1 where it raised.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])
