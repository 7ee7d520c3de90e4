"""Where the Python that a stack wants lies on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from console import SetupError


def find_python(version: str, stack: str) -> Path:
    """A Python of the wanted version: the one that runs this, one on the PATH, or one that pyenv or uv installed.

    Args:
        version: Such as ``3.10``.
        stack: Who wants it; the error names it.

    Returns:
        The interpreter.

    Raises:
        SetupError: If there is none.
    """
    for candidate in _candidates(version):
        if version_of(candidate) == version:
            return candidate
    raise SetupError(
        f'The stack {stack} wants Python {version}, and this machine has none; install it, for instance with "pyenv '
        f'install {version}", "uv python install {version}" or "apt-get install python{version}-venv", or name one '
        'with PYTHON=<path>.'
    )


def version_of(python: str | Path) -> str:
    """Such as ``3.10``; empty where it does not run."""
    code = 'import sys; print("%d.%d" % sys.version_info[:2])'
    try:
        # pyenv's stand-ins exist for versions that are not chosen, too, and end in an error.
        return subprocess.run([str(python), '-c', code], capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def _candidates(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    for place in os.environ.get('PATH', '').split(os.pathsep):
        yield Path(place, f'python{version}')
    homes = {
        Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv', 'versions'): f'{version}.*',
        Path(os.environ.get('UV_PYTHON_INSTALL_DIR') or Path.home() / '.local/share/uv/python'): f'cpython-{version}.*',
    }
    for home, pattern in homes.items():
        for folder in sorted(home.glob(pattern), reverse=True):
            yield folder / 'bin/python'
