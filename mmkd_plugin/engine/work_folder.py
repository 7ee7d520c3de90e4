"""The folder of a run belongs to one run: it can be written to, and nobody else has written or writes there."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import os.path as osp
from collections.abc import Iterator
from typing import Callable, TypeVar

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmkd_plugin.engine.full_disk import full_disk
from mmkd_plugin.engine.latest import LAST, TEMPLATES, checkpoints
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.files import remove_unfinished

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.run.lock'
Result = TypeVar('Result')


def make_folder(path: str) -> None:
    """Make the folder of a run where it is not there yet.

    Args:
        path: The folder.

    Raises:
        DistillError: If that cannot be done, or nothing can be written there.
    """
    advice = 'give another folder with --work-dir.'
    try:
        with full_disk(osp.dirname(osp.abspath(path))):
            os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DistillError(f'The work folder "{path}" cannot be made, since a file is in the way; {advice}') from error
    except OSError as error:
        raise DistillError(f'The work folder "{path}" cannot be made ({error.strerror}); {advice}') from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DistillError(f'The work folder "{path}" cannot be written to; {advice}')


def checkpoint_folders(runner: Runner) -> list[str]:
    """Folders on this machine where the checkpoints of a run lie."""
    folders = []
    for hook in _checkpoint_hooks(runner):
        out_dir = str(hook.out_dir or runner.work_dir)
        if '://' in out_dir:
            continue
        if hook.out_dir is not None and not hasattr(hook, 'file_backend'):
            # The hook adds the name of the work folder when the training starts.
            out_dir = osp.join(out_dir, osp.basename(runner.work_dir))
        folders.append(osp.abspath(out_dir))
    return list(dict.fromkeys([*folders, runner.work_dir]))


def checkpoint_templates(runner: Runner) -> list[str]:
    """How the checkpoints of a run are called."""
    return list(dict.fromkeys([*(hook.filename_tmpl for hook in _checkpoint_hooks(runner)), *TEMPLATES]))


def _checkpoint_hooks(runner: Runner) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]


def earlier_checkpoints(runner: Runner) -> list[str]:
    """Paths of the checkpoints of an earlier run, the newest last; none where no ``last_checkpoint`` tells of a run."""
    if not osp.isfile(osp.join(runner.work_dir, LAST)):
        return []
    places, templates = checkpoint_folders(runner), checkpoint_templates(runner)
    found = [path for place in places for name in templates for _, path in checkpoints(place, name)]
    return sorted(found, key=osp.getmtime)


def forget_checkpoints(folder: str) -> None:
    """Remove what an earlier run can be resumed from.

    Args:
        folder: Its work folder; it need not be there.
    """
    for template in TEMPLATES:
        for _, path in checkpoints(folder, template):
            os.remove(path)
    with contextlib.suppress(FileNotFoundError):
        os.remove(osp.join(folder, LAST))


def in_its_own_folder(train: Callable[..., Result]) -> Callable[..., Result]:
    """Let a runner's ``train`` refuse a folder of another run, and keep other runs out until it has ended."""

    @functools.wraps(train)
    def wrapper(runner: Runner) -> Result:
        with _own(runner):
            return train(runner)

    return wrapper


@contextlib.contextmanager
def _own(runner: Runner) -> Iterator[None]:
    """Check the folder on the main process, for all of them, and hold it."""
    with contextlib.ExitStack() as held:
        refusal = [_take(runner, held) if is_main_process() else None]
        broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise DistillError(refusal[0])
        runner._owns_folder = True
        with full_disk(runner.work_dir):
            yield


def _take(runner: Runner, held: contextlib.ExitStack) -> str | None:
    """Lock the folder and clear it of half-written files; a sentence where that may not be."""
    folder = runner.work_dir
    try:
        held.enter_context(_locked(folder))
    except BlockingIOError:
        return (
            f'Another run (process {_holder(folder)}) writes into "{folder}" right now; wait until it has ended, or '
            'give another --work-dir.'
        )
    earlier = earlier_checkpoints(runner)
    if earlier and not runner._resume and not getattr(runner, '_owns_folder', False):
        return (
            f'"{folder}" holds the checkpoints of an earlier run (the newest is {osp.basename(earlier[-1])}), and a '
            'new run would mix with it; go on with that one by --resume, give another --work-dir, or delete the folder.'
        )
    for place in checkpoint_folders(runner):
        for name in remove_unfinished(place):
            runner.logger.info(f'"{name}", which a killed run left half written in "{place}", is removed.')
    return None


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Lock a folder against other processes; the system gives it back however this one ends.

    Raises:
        BlockingIOError: If another process holds it.
    """
    try:
        handle = os.open(osp.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        handle = None
    if fcntl is None or handle is None:
        yield
        return
    try:
        try:
            # A record lock, other than flock, is not shared with the workers that load data.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(*error.args) from error
            # The file system knows no locks.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _holder(folder: str) -> str:
    try:
        with open(osp.join(folder, LOCK)) as opened:
            return opened.read().strip() or 'unknown'
    except OSError:
        return 'unknown'
