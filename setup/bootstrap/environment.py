"""The virtual environment: made, repaired, looked into, and remembered as complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from console import SetupError, run, say

try:
    import fcntl
except ImportError:  # Not on Windows, where two set-ups at once go unnoticed.
    fcntl = None  # type: ignore[assignment]

_VERSIONS = """
import importlib.metadata, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except Exception:
        return ''
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


class Environment:
    """A virtual environment and the note in it that set-up left when it was done.

    Args:
        folder: Where it lies.
        root: The working tree it serves.
        maker: The Python that it is made with, should it have to be made.
    """

    def __init__(self, folder: Path, root: Path, maker: str | Path = sys.executable) -> None:
        self.folder = folder
        self.root = root
        self.maker = maker
        self.python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
        self.log = folder / 'setup.log'
        self._stamp = folder / 'setup.json'

    def ensure(self) -> None:
        """Make the environment, or repair one that was left half done.

        Raises:
            SetupError: If this Python cannot make one.
        """
        if self._works('import pip'):
            return
        if self._works('import sys'):
            # Python is there and pip is not: an earlier try was cut off between the two.
            run('pip: restoring', [self.python, '-m', 'ensurepip', '--upgrade'], self.log)
            return
        if self.folder.exists():
            say(f'  {self.folder} does not work; it is made anew.')
            shutil.rmtree(self.folder)
        done = subprocess.run([str(self.maker), '-m', 'venv', str(self.folder)], capture_output=True, text=True)
        if done.returncode or not self._works('import pip'):
            shutil.rmtree(self.folder, ignore_errors=True)
            raise SetupError(
                f'{self.maker} cannot make a virtual environment ({_last(done.stdout + done.stderr)}); install its '
                'venv module, for instance with "apt-get install python3-venv", and run the same command again.'
            )
        say(f'  virtual environment: made in {self.folder}.')

    def pip(self, title: str, *arguments: str | Path) -> None:
        """Run the environment's pip."""
        run(
            title,
            [self.python, '-m', 'pip', '--disable-pip-version-check', '--no-input', *arguments],
            self.log,
            env={'PYTHONNOUSERSITE': '1', 'PIP_USER': '0'},
        )

    def ask(self, code: str, *arguments: str) -> Any:
        """Run code in the environment.

        Args:
            code: It prints JSON.
            arguments: Its ``sys.argv[1:]``.

        Returns:
            What it printed, None if it failed.
        """
        # From a folder without packages, so that only installed ones are seen.
        done = subprocess.run(
            [str(self.python), '-W', 'ignore', '-c', code, *arguments], capture_output=True, text=True, cwd=self.folder
        )
        if done.returncode:
            return None
        try:
            return json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            return None

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """The installed versions of packages, empty for those that are not installed."""
        found = self.ask(_VERSIONS, *names)
        return found if isinstance(found, dict) else {}

    def complete(self, wanted: str) -> bool:
        """Whether set-up finished here for the same request, and nothing changed since.

        Args:
            wanted: What :func:`fingerprint` gave.
        """
        try:
            stamp = json.loads(self._stamp.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return False
        same = stamp.get('wanted') == wanted and stamp.get('root') == str(self.root)
        return same and self.versions(stamp['versions']) == stamp['versions']

    def remember(self, wanted: str, names: Iterable[str]) -> None:
        """Note that set-up finished."""
        stamp = {'wanted': wanted, 'root': str(self.root), 'versions': self.versions(names)}
        self._stamp.write_text(json.dumps(stamp, indent=1), encoding='utf-8')

    def forget(self) -> None:
        """Drop the note: set-up is under way."""
        self._stamp.unlink(missing_ok=True)

    def _works(self, code: str) -> bool:
        try:
            return subprocess.run([str(self.python), '-c', code], capture_output=True).returncode == 0
        except OSError:
            return False


def fingerprint(files: Iterable[Path], *choices: str) -> str:
    """A short text that changes with the contents of files and with the user's choices."""
    digest = hashlib.sha256()
    for part in [file.read_bytes() for file in files] + [choice.encode() for choice in choices]:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def only_one(cache: Path) -> Iterator[int]:
    """Wait until no other set-up works on the cache.

    Args:
        cache: The cache folder.

    Yields:
        The descriptor of the lock; a compiler that inherits it keeps the lock should set-up be killed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache / 'setup.lock', os.O_RDWR | os.O_CREAT)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say('  another set-up is running; waiting for it to end.')
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else 'no reason given'
