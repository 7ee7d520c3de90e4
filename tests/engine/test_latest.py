"""What a run goes on from, whatever has become of its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mmkd_plugin.engine.latest import TEMPLATES, checkpoints, is_whole, newest_whole
from mmkd_plugin.errors import DistillError


@pytest.fixture
def folder(tmp_path):
    """A run of three steps; each file is a second younger than the one before."""
    for step in (1, 2, 3):
        save(tmp_path / f'iter_{step}.pth', age=100 - step)
    point(tmp_path, tmp_path / 'iter_3.pth', age=96)
    return tmp_path


def save(path: Path, age: int = 0) -> None:
    torch.save(dict(meta={}, state_dict=dict(a=torch.zeros(100))), path)
    older(path, age)


def point(folder: Path, target: object, age: int = 0) -> None:
    (folder / 'last_checkpoint').write_text(str(target))
    older(folder / 'last_checkpoint', age)


def older(path: Path, age: int) -> None:
    os.utime(path, (10**9 - age, 10**9 - age))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def find(folder: Path, *others: Path) -> tuple[str | None, list[str]]:
    said: list[str] = []
    found = newest_whole(str(folder), [str(folder), *map(str, others)], TEMPLATES, said.append)
    return found and Path(found).name, said


def test_the_usual_case_is_said_by_nobody(folder):
    assert find(folder) == ('iter_3.pth', [])


def test_a_file_cut_off_at_any_byte_is_not_whole(tmp_path):
    path = tmp_path / 'iter_1.pth'
    save(path)
    whole = path.read_bytes()
    assert is_whole(str(path))
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert not is_whole(str(path)), size
    assert not is_whole(str(tmp_path / 'gone.pth')) and not is_whole(str(tmp_path))


def test_last_checkpoint_is_missing(folder):
    (folder / 'last_checkpoint').unlink()
    name, (said,) = find(folder)
    assert name == 'iter_3.pth' and 'last_checkpoint is missing' in said and 'iter_3.pth' in said


def test_last_checkpoint_is_empty(folder):
    point(folder, '')
    assert find(folder)[0] == 'iter_3.pth'


def test_named_file_is_gone(folder):
    (folder / 'iter_3.pth').unlink()
    name, (said,) = find(folder)
    assert name == 'iter_2.pth' and 'which is gone' in said


def test_named_file_is_cut_off(folder):
    cut(folder / 'iter_3.pth', 500)
    name, (said,) = find(folder)
    assert name == 'iter_2.pth' and 'which is incomplete' in said


def test_half_a_file_newer_than_the_named_one_is_passed_over(folder):
    save(folder / 'iter_4.pth')
    cut(folder / 'iter_4.pth', 500)
    assert find(folder) == ('iter_3.pth', [])


def test_whole_file_that_last_checkpoint_could_not_name_any_more(folder):
    save(folder / 'iter_4.pth', age=50)
    name, (said,) = find(folder)
    assert name == 'iter_4.pth' and 'was written after last_checkpoint' in said


def test_going_back_on_purpose_is_respected(folder):
    """After a run from iter_1 the file of a higher number is of the run that was given up."""
    point(folder, folder / 'iter_2.pth', age=10)
    assert find(folder) == ('iter_2.pth', [])


def test_highest_number_counts_not_the_alphabet(tmp_path):
    for step in (9, 10):
        save(tmp_path / f'iter_{step}.pth')
    assert find(tmp_path)[0] == 'iter_10.pth'
    assert [number for number, _ in checkpoints(str(tmp_path), 'iter_{}.pth')] == [9, 10]


def test_epochs_and_steps_in_one_folder_go_by_their_age(tmp_path):
    save(tmp_path / 'iter_900.pth', age=50)
    save(tmp_path / 'epoch_2.pth', age=10)
    assert find(tmp_path)[0] == 'epoch_2.pth'


def test_copied_folder_is_resumed_where_it_lies(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('copy')
    save(other / 'iter_3.pth')
    point(other, folder / 'iter_3.pth')
    said: list[str] = []
    assert newest_whole(str(other), [str(other)], TEMPLATES, said.append) == str(other / 'iter_3.pth')
    assert 'the run goes on from the file of that name' in said[0]


def test_moved_folder_is_resumed_where_it_lies(folder, tmp_path_factory):
    point(folder, tmp_path_factory.mktemp('old') / 'iter_3.pth')
    assert find(folder)[0] == 'iter_3.pth'


def test_checkpoints_elsewhere_on_purpose(tmp_path):
    (tmp_path / 'out').mkdir()
    save(tmp_path / 'out/iter_3.pth')
    point(tmp_path, tmp_path / 'out/iter_3.pth')
    assert find(tmp_path) == ('iter_3.pth', [])
    assert find(tmp_path, tmp_path / 'out') == ('iter_3.pth', [])


def test_addresses_are_left_to_mmengine(folder):
    point(folder, 's3://bucket/iter_3.pth')
    assert newest_whole(str(folder), [str(folder)], TEMPLATES, print) == 's3://bucket/iter_3.pth'


def test_nothing_there(tmp_path):
    assert find(tmp_path) == (None, [])
    assert find(tmp_path / 'nowhere') == (None, [])


def test_nothing_whole_but_half_a_first_checkpoint(tmp_path):
    (tmp_path / 'iter_1.pth').write_bytes(b'PK')
    assert find(tmp_path) == (None, [])


def test_named_file_is_gone_and_nothing_else_is_whole(tmp_path):
    (tmp_path / 'iter_3.pth').write_bytes(b'PK')
    point(tmp_path, tmp_path / 'iter_2.pth')
    with pytest.raises(DistillError, match=r'^There is nothing to resume from: .*iter_2\.pth", which is gone'):
        find(tmp_path)


def test_damaged_file_speaks_for_itself_where_nothing_else_is_whole(tmp_path):
    (tmp_path / 'iter_3.pth').write_bytes(b'PK')
    point(tmp_path, tmp_path / 'iter_3.pth')
    assert find(tmp_path) == ('iter_3.pth', [])
