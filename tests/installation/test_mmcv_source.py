"""The source of mmcv is taken from pip, corrected, and kept with what was compiled in it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

VERSIONS = """
def get_version():
    version_file = 'version.py'
    with open(version_file, encoding='utf-8') as f:
        exec(compile(f.read(), version_file, 'exec'))
    return locals()['__version__']
flags = ['-std=c++17']
apple = ['-Wall', '-std=c++17']
"""


def pip(folder: Path, status: int, gives: bool = True) -> Path:
    """A Python whose pip unpacks an mmcv below ``TMPDIR`` and then ends with a status."""
    unpack = 'mkdir -p "$TMPDIR/pip-download-1/mmcv_2" && cp setup.txt "$TMPDIR/pip-download-1/mmcv_2/setup.py"\n'
    (folder / 'setup.txt').write_text(VERSIONS)
    python = folder / 'python'
    python.write_text(f'#!/bin/sh\ncd {folder}\n{unpack if gives else ""}exit {status}\n')
    python.chmod(0o755)
    return python


@pytest.mark.parametrize('status', [0, 1], ids=['pip is content', 'its set-up gives no metadata'])
def test_source_is_what_pip_unpacked(mmcv_source: ModuleType, tmp_path: Path, status: int) -> None:
    source = mmcv_source.fetch_source(pip(tmp_path, status), 'mmcv', '2.1.0', tmp_path / 'src')
    assert source == tmp_path / 'src/mmcv-2.1.0'
    assert (source / 'setup.py').is_file()
    assert not (tmp_path / 'src/fetching').exists()


def test_source_that_pip_cannot_get_is_told(mmcv_source: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(mmcv_source.SetupError, match=r'pip cannot get the source of mmcv 2\.1\.0.*build\.log'):
        mmcv_source.fetch_source(pip(tmp_path, 1, gives=False), 'mmcv', '2.1.0', tmp_path / 'src')


def test_corrected_set_up_tells_its_version_on_every_python(
    mmcv_source: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'version.py').write_text("__version__ = '2.1.0'\n")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / 'setup.py'
    script.write_text(VERSIONS)
    for _ in range(2):
        mmcv_source.correct(script)
        scope: dict = {}
        exec(compile(script.read_text(), 'setup.py', 'exec'), scope)
        assert scope['get_version']() == '2.1.0'
        assert scope['flags'] == []
        assert scope['apple'] == ['-Wall', '-std=c++17']


def test_compiled_files_survive_the_next_try(mmcv_source: ModuleType, tmp_path: Path) -> None:
    python = pip(tmp_path, 0)
    source = mmcv_source.fetch_source(python, 'mmcv', '2.1.0', tmp_path / 'src')
    (source / 'build').mkdir()
    (source / 'build/a.o').touch()
    again = mmcv_source.fetch_source(Path('no-python'), 'mmcv', '2.1.0', tmp_path / 'src')
    assert (again / 'build/a.o').exists()


def test_what_an_interrupted_try_left_is_fetched_again(mmcv_source: ModuleType, tmp_path: Path) -> None:
    left = tmp_path / 'src/fetching/pip-download-0/mmcv_1'
    left.mkdir(parents=True)
    (left / 'half').touch()
    source = mmcv_source.fetch_source(pip(tmp_path, 0), 'mmcv', '2.1.0', tmp_path / 'src')
    assert not (source / 'half').exists()
