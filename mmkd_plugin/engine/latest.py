"""The checkpoint that a run goes on from: the newest that is whole, in the folder as it lies now."""

from __future__ import annotations

import os
import os.path as osp
import re
import zipfile
from collections.abc import Iterable
from typing import Callable

from mmkd_plugin.errors import DistillError

LAST = 'last_checkpoint'
TEMPLATES = ('iter_{}.pth', 'epoch_{}.pth')


def checkpoints(folder: str, template: str) -> list[tuple[int, str]]:
    """Checkpoints in a folder by number, the newest last.

    Args:
        folder: Where they lie; it need not be there.
        template: Their names, with ``{}`` for the number.

    Returns:
        Numbers and paths.
    """
    pattern = re.compile(re.escape(template).replace(re.escape('{}'), r'(\d+)'))
    names = os.listdir(folder) if osp.isdir(folder) else []
    matches = filter(None, map(pattern.fullmatch, names))
    return sorted((int(match[1]), osp.join(folder, match[0])) for match in matches)


def is_whole(path: str) -> bool:
    """Whether a file is a zip archive to its end, as ``torch.save`` writes them: its table of contents comes last."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def newest_whole(
    work_dir: str, folders: Iterable[str], templates: Iterable[str], report: Callable[[str], object]
) -> str | None:
    """Find what to resume from.

    It is what ``last_checkpoint`` names, looked for in the folder as it lies now before the place where it was written.
    Where that is gone or incomplete, or a later one became whole before ``last_checkpoint`` could name it, it is the
    newest whole checkpoint.

    Args:
        work_dir: Folder of the run, which holds ``last_checkpoint``.
        folders: Where its checkpoints lie.
        templates: How they are called.
        report: Gets one sentence where it is not simply what ``last_checkpoint`` names.

    Returns:
        Path or address, None where there is nothing to go on from.

    Raises:
        DistillError: If the run had checkpoints, and none that is whole is left.
    """
    folders = list(dict.fromkeys(folders))
    found = {name: sum((checkpoints(folder, name) for folder in folders), []) for name in dict.fromkeys(templates)}
    note = osp.join(work_dir, LAST)
    named = _read(note)
    if '://' in named:
        return named
    last = _where_it_lies(named, folders) if named else ''
    if last and is_whole(last):
        later = _later(last, note, found)
        if later:
            report(f'"{later}" was written after {LAST} was, so the run goes on from there.')
        elif osp.abspath(last) != osp.abspath(named):
            report(f'{LAST} names "{named}"; the run goes on from the file of that name in "{osp.dirname(last)}".')
        return later or last
    newest = [path for path in (_newest(items) for items in found.values()) if path]
    what = f'names "{named}", which is {"incomplete" if osp.exists(last) else "gone"}' if named else 'is missing'
    if newest:
        chosen = max(newest, key=osp.getmtime)
        report(f'{LAST} {what}; the run goes on from "{chosen}", the newest whole checkpoint.')
        return chosen
    if osp.exists(last):
        # Reading it says what is wrong with it, or reads what another writer made.
        return last
    if named:
        raise DistillError(
            f'There is nothing to resume from: {LAST} in "{work_dir}" {what}, and no whole checkpoint lies beside it; '
            'bring the file back, or start anew with another --work-dir.'
        )
    return None


def _read(note: str) -> str:
    try:
        with open(note) as opened:
            return opened.read().strip()
    except OSError:
        return ''


def _where_it_lies(named: str, folders: Iterable[str]) -> str:
    """The whole file of that name in the folders of the run, or else the one that was meant when it was written."""
    here = (osp.join(folder, osp.basename(named)) for folder in folders)
    return next((path for path in here if is_whole(path)), named)


def _newest(items: list[tuple[int, str]]) -> str | None:
    return next((path for _, path in reversed(items) if is_whole(path)), None)


def _later(last: str, note: str, found: dict[str, list[tuple[int, str]]]) -> str | None:
    """A checkpoint that became whole before ``last_checkpoint`` could name it; its process was killed in between."""
    for items in found.values():
        number = next((number for number, path in items if osp.abspath(path) == osp.abspath(last)), None)
        if number is not None:
            written = osp.getmtime(note)
            return _newest([item for item in items if item[0] > number and osp.getmtime(item[1]) > written])
    return None
