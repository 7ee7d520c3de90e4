"""Setuptools' build backend plus what OpenMMLab's tools look for in an installed package.

Every wheel gets a ``.pth`` file that makes ``mmkd_plugin::`` bases known to MMEngine. A normal wheel gets configs and
tools as ``mmkd_plugin/.mim``; an editable one links them there and says where the package lies.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'mmkd_plugin'
SHARED = ('configs', 'tools', 'model-index.yml')
HOOK = '_mmkd_plugin_config_hook'
OFF = 'MMKD_NO_STARTUP'
# Python runs the lines of a .pth file that begin with "import"; an error there must not disturb the user's start.
HOOK_PTH = (
    f"import os; os.environ.get('{OFF}') or "
    f"exec('try:\\n import {HOOK} as hook\\n hook.install()\\nexcept Exception:\\n pass')\n"
)


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel with configs and tools inside."""
    # Setuptools packs whatever an earlier build left there, removed modules too.
    shutil.rmtree(ROOT / 'build/lib', ignore_errors=True)
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    files = _hook_files()
    for path in _shared_files():
        files[f'{PACKAGE}/.mim/{path.relative_to(ROOT).as_posix()}'] = path
    _complete(Path(wheel_directory, name), files)
    return name


def build_editable(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel that points here.

    MMEngine and mim join the install location with the first line of ``top_level.txt``; an absolute path survives
    that, so they find the package in the working tree.
    """
    link_shared_files()
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _complete(Path(wheel_directory, name), _hook_files(), top_level=f'{ROOT / PACKAGE}\n')
    return name


def link_shared_files() -> None:
    """Make configs and tools reachable as ``mmkd_plugin/.mim`` in the working tree."""
    folder = ROOT / PACKAGE / '.mim'
    folder.mkdir(exist_ok=True)
    for name in SHARED:
        if not (folder / name).exists():
            # A link that leads nowhere does not exist, and yet is in the way.
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(Path('../..', name))


def _shared_files() -> list[Path]:
    tops = [ROOT / name for name in SHARED]
    found = [path for top in tops for path in (sorted(top.rglob('*')) if top.is_dir() else [top])]
    return [path for path in found if path.is_file() and path.parent.name != '__pycache__']


def _hook_files() -> dict[str, bytes | Path]:
    return {f'{HOOK}.py': ROOT / PACKAGE / 'compat/config_hook.py', f'{HOOK}.pth': HOOK_PTH.encode()}


def _complete(wheel: Path, files: dict[str, bytes | Path], top_level: str | None = None) -> None:
    """Add files to a finished wheel, in place.

    Args:
        wheel: The wheel.
        files: What to add, by name in the wheel: the content, or the file that holds it.
        top_level: New content of its ``top_level.txt``.
    """
    with zipfile.ZipFile(wheel) as archive:
        entries = {info: archive.read(info) for info in archive.infolist()}
    for name, content in files.items():
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        executable = isinstance(content, Path) and os.access(content, os.X_OK)
        info.external_attr = (0o100755 if executable else 0o100644) << 16
        entries[info] = content.read_bytes() if isinstance(content, Path) else content
    record = next(info for info in entries if info.filename.endswith('.dist-info/RECORD'))
    del entries[record]
    lines = []
    for info, content in entries.items():
        if top_level is not None and info.filename.endswith('.dist-info/top_level.txt'):
            entries[info] = content = top_level.encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')
        lines.append(f'{info.filename},sha256={digest},{len(content)}')
    entries[record] = '\n'.join([*lines, f'{record.filename},,', '']).encode()
    complete = wheel.with_suffix('.tmp')
    with zipfile.ZipFile(complete, 'w') as archive:
        for info, content in entries.items():
            archive.writestr(info, content)
    complete.replace(wheel)
