"""A generated folder that is either complete and checked, or not there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmkd_plugin.datasets.coco_mini.annotation import json_bytes
from mmkd_plugin.errors import DistillError

MANIFEST = 'manifest.json'
"""Tells what made a folder, which files belong to it, and their checksum."""


def checksum(root: Path, files: list[str]) -> str:
    """SHA-256 over names, lengths and contents of files.

    Args:
        root: The folder.
        files: Paths below it, separated by slashes.

    Returns:
        The hexadecimal digest; an empty string if a file is missing.
    """
    digest = hashlib.sha256()
    for name in sorted(files):
        try:
            content = (root / name).read_bytes()
        except OSError:
            return ''
        digest.update(f'{name} {len(content)}\n'.encode())
        digest.update(content)
    return digest.hexdigest()


def _files(root: Path) -> list[str]:
    names = (path.relative_to(root).as_posix() for path in root.rglob('*') if not path.is_dir())
    return sorted(name for name in names if name != MANIFEST)


def _manifest(root: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where there is no folder or an empty one."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
        if {'settings', 'generator', 'files', 'sha256'} <= manifest.keys():
            return manifest
    except (OSError, ValueError, AttributeError):
        pass
    raise DistillError(f'"{root}" holds files that this command did not write; name another folder or remove this one.')


def _is_complete(root: Path, settings: dict[str, Any], generator: str) -> bool:
    """Whether the folder holds what the settings ask for, unharmed."""
    manifest = _manifest(root)
    if manifest is None:
        return False
    if manifest['settings'] != settings:
        keys = [key for key in settings if settings[key] != manifest['settings'].get(key)]
        differences = ', '.join(f'{key} {manifest["settings"].get(key)} instead of {settings[key]}' for key in keys)
        raise DistillError(
            f'"{root}" was made with other settings ({differences or "more of them"}); name another folder or remove '
            'this one.'
        )
    return manifest['generator'] == generator and checksum(root, manifest['files']) == manifest['sha256']


def _check_replaceable(root: Path) -> None:
    """Refuse to replace a folder in which somebody put files of their own."""
    manifest = _manifest(root)
    strangers = sorted(set(_files(root)) - set(manifest['files'])) if manifest else []
    if strangers:
        raise DistillError(f'"{root}" must be made again but also holds "{strangers[0]}"; move that away first.')


def ensure_folder(
    root: Path,
    settings: dict[str, Any],
    generator: str,
    build: Callable[[Path], None],
    expected: str | None = None,
    report: Callable[[str], None] = print,
) -> bool:
    """Make a folder unless it is there already.

    The work is done in a hidden folder beside it, which takes the final name once it is complete: an interrupted run
    leaves nothing under that name, and the next one begins anew. Several processes may ask at the same time.

    Args:
        root: The folder.
        settings: What the content depends on; compared with those of an existing folder. JSON values.
        generator: Names the version of the code; a folder that another version made is made again.
        build: Writes the content into the empty folder it is given.
        expected: The checksum that the result must have.
        report: Takes the lines for the user.

    Returns:
        Whether it had to be made.

    Raises:
        DistillError: If the folder belongs to something else or to other settings, or the result has another
            checksum than expected.
    """
    root = root.resolve()
    if _is_complete(root, settings, generator):
        report(f'{root} is complete.')
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(root.parent / f'.{root.name}.lock')):
        if _is_complete(root, settings, generator):
            report(f'{root} is complete.')
            return False
        _check_replaceable(root)
        partial = root.parent / f'.{root.name}.partial'
        if partial.exists():
            report(f'{partial} is left from an interrupted run; starting again.')
            shutil.rmtree(partial)
        partial.mkdir()
        report(f'{root} is being made.')
        try:
            build(partial)
        except DistillError:
            shutil.rmtree(partial)
            raise
        files = _files(partial)
        found = checksum(partial, files)
        if expected is not None and found != expected:
            raise DistillError(
                f'The files in "{partial}" have the checksum {found} instead of {expected}: the code that draws them '
                'was changed, or this machine computes otherwise.'
            )
        manifest = {'settings': settings, 'generator': generator, 'sha256': found, 'files': files}
        (partial / MANIFEST).write_bytes(json_bytes(manifest))
        if root.exists():
            report(f'{root} is empty, damaged or of another version; replacing it.')
            shutil.rmtree(root)
        partial.rename(root)
    return True
