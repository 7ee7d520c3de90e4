"""The virtual environment is made, repaired, and recognised when it is complete."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_environment_is_made_and_repaired(environment: ModuleType, tmp_path: Path) -> None:
    made = environment.Environment(tmp_path / 'venv', tmp_path)
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', made.folder], check=True)
    (made.folder / 'kept').touch()
    made.ensure()
    assert made.versions(['pip'])['pip']
    assert (made.folder / 'kept').exists()


def test_environment_without_a_python_is_made_anew(environment: ModuleType, tmp_path: Path) -> None:
    made = environment.Environment(tmp_path / 'venv', tmp_path)
    made.python.parent.mkdir(parents=True)
    made.python.symlink_to('/nonexistent/python')
    made.ensure()
    assert made.versions(['pip'])['pip']


def test_python_without_venv_is_told_in_a_sentence(environment: ModuleType, tmp_path: Path) -> None:
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\necho "ensurepip is not available" >&2\nexit 1\n')
    fake.chmod(0o755)
    made = environment.Environment(tmp_path / 'venv', tmp_path, fake)
    with pytest.raises(environment.SetupError, match=r'ensurepip is not available.*python3-venv'):
        made.ensure()


def with_packages(module: ModuleType, folder: Path, versions: dict[str, str]) -> Any:
    """An environment whose packages a test lists."""
    made = module.Environment(folder, folder)
    made.versions = lambda names: {name: versions.get(name, '') for name in names}
    return made


def test_complete_environment_is_recognised(environment: ModuleType, tmp_path: Path) -> None:
    versions = {'torch': '2.13.0', 'mmcv': '2.1.0'}
    made = with_packages(environment, tmp_path, versions)
    assert not made.complete('abc')
    made.remember('abc', ['torch', 'mmcv'])
    assert made.complete('abc')
    assert not made.complete('other request')
    versions['mmcv'] = '2.2.0'
    assert not made.complete('abc')


def test_moved_working_tree_is_set_up_again(environment: ModuleType, tmp_path: Path) -> None:
    made = with_packages(environment, tmp_path, {})
    made.remember('abc', [])
    made.root = tmp_path / 'moved'
    assert not made.complete('abc')


def test_unfinished_set_up_is_not_complete(environment: ModuleType, tmp_path: Path) -> None:
    made = with_packages(environment, tmp_path, {})
    made.remember('abc', [])
    made.forget()
    assert not made.complete('abc')


def test_request_changes_with_files_and_choices(environment: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / 'a'
    file.write_text('1')
    first = environment.fingerprint([file], '')
    assert first == environment.fingerprint([file], '')
    assert first != environment.fingerprint([file], 'torch==2.9.1')
    file.write_text('2')
    assert first != environment.fingerprint([file], '')


def test_second_set_up_waits(environment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = []

    def second() -> None:
        with environment.only_one(tmp_path):
            order.append('second')

    with environment.only_one(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append('first')
    thread.join()
    assert order == ['first', 'second']
    assert 'another set-up is running' in capsys.readouterr().out
