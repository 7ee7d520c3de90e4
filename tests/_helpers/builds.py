"""Building and installing the plugin apart from the working tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command in an environment without the working tree and without settings of the plugin.

    Args:
        command: Program and arguments.
        cwd: Working folder.
        variables: Environment variables that the command sees besides.

    Returns:
        What it printed.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'PIP_REQUIRE', 'MMKD_'))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env={**env, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def pip(*arguments: str | Path, cwd: Path) -> str:
    """Run this interpreter's pip without the network."""
    return run(sys.executable, '-m', 'pip', '--disable-pip-version-check', *arguments, cwd=cwd)


def environment(folder: Path) -> Path:
    """A virtual environment that sees this interpreter's packages, but not the plugin if it is among them."""
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder.parent)
    site = next(folder.glob('lib/python*/site-packages'))
    shared = [path for path in sys.path if Path(path).name == 'site-packages']
    site.joinpath('shared_packages.pth').write_text('\n'.join([*shared, '']))
    return folder / 'bin/python'
