"""A stack's Python is found where people keep them, and asked for in a sentence where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

OWN = '.'.join(map(str, sys.version_info[:2]))


def script(path: Path, body: str) -> Path:
    """A program that stands in for a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Python but the one that runs this."""
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path / 'pyenv'))
    monkeypatch.setenv('UV_PYTHON_INSTALL_DIR', str(tmp_path / 'uv'))


def test_running_python_is_taken_where_it_fits(interpreters: ModuleType) -> None:
    assert interpreters.find_python(OWN, 'any') == Path(sys.executable)


@pytest.mark.parametrize(
    'place', ['bin/python2.99', 'pyenv/versions/2.99.1/bin/python', 'uv/cpython-2.99.1-x/bin/python']
)
def test_other_python_is_found(interpreters: ModuleType, tmp_path: Path, place: str) -> None:
    python = script(tmp_path / place, 'echo 2.99')
    assert interpreters.find_python('2.99', 'any') == python


def test_stand_in_that_does_not_run_is_passed_over(interpreters: ModuleType, tmp_path: Path) -> None:
    script(tmp_path / 'bin/python2.99', 'echo "pyenv: not chosen" >&2; exit 127')
    python = script(tmp_path / 'pyenv/versions/2.99.1/bin/python', 'echo 2.99')
    assert interpreters.find_python('2.99', 'any') == python


def test_missing_python_is_told_with_ways_to_get_it(interpreters: ModuleType) -> None:
    with pytest.raises(
        interpreters.SetupError, match=r'The stack old wants Python 2\.99.*pyenv install 2\.99.*PYTHON='
    ):
        interpreters.find_python('2.99', 'old')
