"""A folder must be complete or absent, whatever happens while it is made."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from mmkd_plugin.datasets.coco_mini.folder import checksum, ensure_folder
from mmkd_plugin.errors import DistillError

SETTINGS = {'seed': 1}

KILLED = """
import os, sys
from pathlib import Path
from mmkd_plugin.datasets.coco_mini.folder import ensure_folder

def build(folder):
    (folder / 'half').write_bytes(b'')
    os._exit(9)

ensure_folder(Path(sys.argv[1]), {'seed': 1}, 'v1', build)
"""


def build(folder: Path) -> None:
    (folder / 'sub').mkdir()
    (folder / 'sub' / 'b').write_bytes(b'two')
    (folder / 'a').write_bytes(b'one')


def refuse(folder: Path) -> None:
    raise AssertionError('built again')


def ensure(root: Path, **changes) -> bool:
    arguments = {'settings': SETTINGS, 'generator': 'v1', 'build': build, 'report': lambda line: None, **changes}
    return ensure_folder(root, **arguments)


def test_folder_is_made(tmp_path):
    assert ensure(tmp_path / 'set')
    assert (tmp_path / 'set' / 'sub' / 'b').read_bytes() == b'two'


def test_complete_folder_is_left_alone(tmp_path):
    ensure(tmp_path / 'set')
    lines: list[str] = []
    assert not ensure(tmp_path / 'set', build=refuse, report=lines.append)
    assert len(lines) == 1 and 'complete' in lines[0]


def test_checksum_covers_names_lengths_and_contents(tmp_path):
    build(tmp_path)
    expected = hashlib.sha256(b'a 3\none' + b'sub/b 3\ntwo').hexdigest()
    assert checksum(tmp_path, ['sub/b', 'a']) == expected


def test_killed_run_leaves_nothing_and_is_repaired(tmp_path):
    process = subprocess.run([sys.executable, '-c', KILLED, str(tmp_path / 'set')], capture_output=True)
    assert process.returncode == 9, process.stderr
    assert not (tmp_path / 'set').exists()
    assert (tmp_path / '.set.partial' / 'half').exists()
    assert ensure(tmp_path / 'set')
    assert sorted(path.name for path in (tmp_path / 'set').iterdir()) == ['a', 'manifest.json', 'sub']
    assert not (tmp_path / '.set.partial').exists()


def test_failed_build_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        raise DistillError('no source')

    with pytest.raises(DistillError, match='no source'):
        ensure(tmp_path / 'set', build=fail)
    assert not (tmp_path / 'set').exists()
    assert not (tmp_path / '.set.partial').exists()


@pytest.mark.parametrize('harm', [lambda path: path.write_bytes(b'0ne'), lambda path: path.unlink()])
def test_damaged_folder_is_repaired(tmp_path, harm):
    ensure(tmp_path / 'set')
    harm(tmp_path / 'set' / 'a')
    assert ensure(tmp_path / 'set')
    assert (tmp_path / 'set' / 'a').read_bytes() == b'one'


def test_folder_of_another_version_is_made_again(tmp_path):
    ensure(tmp_path / 'set')
    assert ensure(tmp_path / 'set', generator='v2')
    assert not ensure(tmp_path / 'set', generator='v2')


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / 'set').mkdir()
    assert ensure(tmp_path / 'set')


def test_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'thesis.tex').write_bytes(b'')
    with pytest.raises(DistillError, match='did not write'):
        ensure(tmp_path / 'set')
    assert (tmp_path / 'set' / 'thesis.tex').exists()


def test_other_settings_are_refused(tmp_path):
    ensure(tmp_path / 'set')
    with pytest.raises(DistillError, match='seed 1 instead of 2'):
        ensure(tmp_path / 'set', settings={'seed': 2})


def test_repair_spares_files_of_the_user(tmp_path):
    ensure(tmp_path / 'set')
    (tmp_path / 'set' / 'notes.txt').write_bytes(b'mine')
    assert not ensure(tmp_path / 'set', build=refuse)
    (tmp_path / 'set' / 'a').unlink()
    with pytest.raises(DistillError, match=r'notes\.txt'):
        ensure(tmp_path / 'set')
    assert (tmp_path / 'set' / 'notes.txt').read_bytes() == b'mine'


def test_wrong_checksum_is_refused(tmp_path):
    with pytest.raises(DistillError, match='checksum'):
        ensure(tmp_path / 'set', expected='0' * 64)
    assert not (tmp_path / 'set').exists()


def test_expected_checksum_is_accepted(tmp_path):
    assert ensure(tmp_path / 'set', expected=hashlib.sha256(b'a 3\none' + b'sub/b 3\ntwo').hexdigest())
