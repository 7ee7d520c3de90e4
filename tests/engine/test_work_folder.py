"""The work folder belongs to one run at a time, and to one run only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
from _helpers.small_runs import began, files, small_runner
from _helpers.two_processes import run_in_two

from mmkd_plugin.engine import work_folder
from mmkd_plugin.engine.work_folder import LOCK, forget_checkpoints, make_folder
from mmkd_plugin.errors import DistillError


def test_second_run_in_the_folder_of_another_is_refused(tmp_path):
    small_runner(tmp_path, 2).train()
    with pytest.raises(DistillError, match=r'the newest is iter_2\.pth.*--resume.*--work-dir.*delete') as caught:
        small_runner(tmp_path, 3).train()
    assert str(tmp_path) in str(caught.value)
    assert files(tmp_path) == ['iter_2.pth']


def test_weights_from_the_folder_are_no_resuming(tmp_path):
    small_runner(tmp_path, 2).train()
    with pytest.raises(DistillError, match='an earlier run'):
        small_runner(tmp_path, 3, load_from=str(tmp_path / 'iter_2.pth')).train()


def test_checkpoints_of_an_earlier_run_elsewhere(tmp_path):
    out = dict(out_dir=str(tmp_path / 'out'))
    small_runner(tmp_path / 'run', 2, out).train()
    with pytest.raises(DistillError, match='an earlier run'):
        small_runner(tmp_path / 'run', 3, out).train()


@pytest.mark.parametrize('load_from', [None, 'iter_2.pth'])
def test_resuming_is_allowed(tmp_path, load_from):
    small_runner(tmp_path, 2).train()
    runner = small_runner(tmp_path, 3, resume=True, load_from=load_from and str(tmp_path / load_from))
    runner.train()
    assert began(runner) == 2 and files(tmp_path) == ['iter_3.pth']


def test_testing_is_allowed(tmp_path):
    small_runner(tmp_path, 2).train()
    small_runner(tmp_path, load_from=str(tmp_path / 'iter_2.pth')).val()


def test_training_again_is_allowed(tmp_path):
    runner = small_runner(tmp_path, 2)
    runner.train()
    runner.train()


@pytest.mark.parametrize('left', ['iter_1.pth', 'last_checkpoint', 'best_acc_iter_1.pth', 'teacher.pth'])
def test_what_is_no_run_is_no_reason(tmp_path, left):
    (tmp_path / left).write_text('')
    small_runner(tmp_path, 1).train()


def test_a_run_that_saved_nothing_can_be_started_again(tmp_path):
    small_runner(tmp_path, 1, dict(interval=-1, save_last=False)).train()
    small_runner(tmp_path, 1).train()


@pytest.mark.parametrize('resume', [True, False])
def test_left_over_files_are_removed_at_the_start(tmp_path, resume):
    if resume:
        small_runner(tmp_path, 1).train()
    for name in ('iter_2.pth.unfinished', 'last_checkpoint.unfinished'):
        (tmp_path / name).write_text('half')
    small_runner(tmp_path, 2, resume=resume).train()
    assert files(tmp_path, '*.unfinished') == []


def test_resume_after_a_kill_in_the_middle_of_writing_by_another_tool(tmp_path):
    """MMEngine removes the old checkpoint first: half a new one is left beside a name of what is gone."""
    small_runner(tmp_path, 3, dict(max_keep_ckpts=2)).train()
    half = tmp_path / 'iter_3.pth'
    half.write_bytes(half.read_bytes()[:1000])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_1.pth'))
    runner = small_runner(tmp_path, 4, resume=True)
    runner.train()
    assert began(runner) == 2


def test_resume_in_a_copy_leaves_the_original_alone(tmp_path):
    small_runner(tmp_path / 'old', 2).train()
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    runner = small_runner(tmp_path / 'new', 3, resume=True)
    runner.train()
    assert began(runner) == 2
    assert files(tmp_path / 'new') == ['iter_3.pth'] and files(tmp_path / 'old') == ['iter_2.pth']
    assert (tmp_path / 'new/last_checkpoint').read_text() == str(tmp_path / 'new/iter_3.pth')


def test_resume_in_a_moved_folder(tmp_path):
    small_runner(tmp_path / 'old', 2).train()
    (tmp_path / 'old').rename(tmp_path / 'new')
    runner = small_runner(tmp_path / 'new', 3, resume=True)
    runner.train()
    assert began(runner) == 2


def test_resume_without_anything_starts_anew(tmp_path):
    runner = small_runner(tmp_path, 1, resume=True)
    runner.train()
    assert began(runner) == 0


HOLD = """
import sys
from mmkd_plugin.engine.work_folder import _locked
with _locked(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in the folder."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.communicate()


def test_two_runs_at_once_are_refused(tmp_path, holder):
    with pytest.raises(DistillError, match=rf'^Another run \(process {holder.pid}\) writes into .*--work-dir'):
        small_runner(tmp_path, 1, resume=True).train()


def test_a_killed_run_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    small_runner(tmp_path, 1).train()
    assert (tmp_path / LOCK).read_text() == str(os.getpid())


def test_systems_without_locks_train_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(work_folder, 'fcntl', None)
    small_runner(tmp_path, 1).train()


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / 'run').write_text('')
    for place in (tmp_path / 'run', tmp_path / 'run' / 'deeper'):
        with pytest.raises(DistillError, match=r'cannot be made, since a file is in the way; give .* --work-dir\.$'):
            small_runner(place)


def test_folder_that_cannot_be_made(tmp_path, monkeypatch):
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(os, 'makedirs', denied)
    with pytest.raises(DistillError, match=r'cannot be made \(Permission denied\); give another folder'):
        make_folder(str(tmp_path / 'run'))


def test_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(DistillError, match='cannot be written to; give another folder with --work-dir'):
        make_folder(str(tmp_path))


def test_forgotten_checkpoints_make_room_for_a_new_run(tmp_path):
    small_runner(tmp_path, 2).train()
    (tmp_path / 'other.pth').write_text('')
    forget_checkpoints(str(tmp_path))
    assert files(tmp_path) == ['other.pth'] and not (tmp_path / 'last_checkpoint').exists()
    forget_checkpoints(str(tmp_path / 'nowhere'))
    small_runner(tmp_path, 1).train()


def test_refusal_reaches_every_process(tmp_path):
    """Rank 0 alone looks at the folder, and no other waits for it."""
    small_runner(tmp_path / 'run', 1).train()
    run_in_two('refused_run.py', tmp_path)
    said = [(tmp_path / f'rank{rank}').read_text() for rank in (0, 1)]
    assert said[0] == said[1] and 'an earlier run' in said[0]
