"""A file is whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mmkd_plugin.engine.full_disk import full_disk
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.files import UNFINISHED, remove_unfinished, whole_file


def test_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    with whole_file(str(path)) as temporary:
        Path(temporary).write_text('new')
        assert path.read_text() == 'old'
        assert Path(temporary).parent == tmp_path
    assert path.read_text() == 'new' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_what_stops_it_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    with pytest.raises(error), whole_file(str(path)) as temporary:
        Path(temporary).write_text('ne')
        raise error
    assert path.read_text() == 'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('number', ['ENOSPC', 'EDQUOT'])
def test_full_disk_is_one_sentence(tmp_path, number):
    expected = pytest.raises(DistillError, match=r'^The disk is full .*takes about 2\.5 MB; free some space')
    path = str(tmp_path / 'a.pth')
    with expected, full_disk(str(tmp_path), lambda: 2_500_000), whole_file(path) as temporary:
        Path(temporary).write_text('ne')
        raise OSError(getattr(errno, number), 'no more')
    assert list(tmp_path.iterdir()) == []


def test_full_disk_anywhere_in_a_run_is_one_sentence(tmp_path):
    expected = pytest.raises(DistillError, match=r'^The disk is full \(no more\): ".*" has .* MB left; free some space')
    with expected, full_disk(str(tmp_path)):
        raise OSError(errno.ENOSPC, 'no more')


def test_left_over_files_are_removed(tmp_path):
    kept, gone = tmp_path / 'iter_1.pth', tmp_path / f'iter_2.pth{UNFINISHED}'
    kept.write_text('')
    gone.write_text('')
    assert remove_unfinished(str(tmp_path)) == [gone.name]
    assert kept.exists() and not gone.exists()
    assert remove_unfinished(str(tmp_path / 'nowhere')) == []
