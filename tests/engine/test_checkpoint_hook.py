"""Whatever fails while a checkpoint is saved, the run goes on from the last step or the one before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from _helpers.faults import disk_full, faults, in_child, killed
from _helpers.small_runs import began, files, small_runner
from mmengine.hooks import CheckpointHook

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.engine.checkpoint_hook import WholeCheckpointHook
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import HOOKS

BEST = dict(save_best='acc', rule='greater')
TWO_BEST = dict(save_best=['acc', 'loss'], rule=['greater', 'less'])
CASES = [pytest.param(2, BEST, id='best'), pytest.param(3, TWO_BEST, id='two best', marks=pytest.mark.slow)]
ONE_SAVE = ['open', 'write', 'close', 'fsync', 'replace', 'fsync folder']


def hook_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))


def everything_is_whole(folder: Path) -> None:
    for name in files(folder):
        assert load_checkpoint_file(str(folder / name))['state_dict']
    last = folder / 'last_checkpoint'
    assert not last.exists() or Path(last.read_text()).is_file()


def goes_on(folder: Path, at_least: int, steps: int, checkpoint: dict) -> None:
    runner = small_runner(folder, steps + 1, checkpoint, resume=True)
    runner.train()
    assert began(runner) >= at_least
    assert files(folder, 'iter_*') == [f'iter_{steps + 1}.pth']
    assert files(folder, '*.unfinished') == []
    everything_is_whole(folder)


def test_order_of_one_save(tmp_path):
    with faults(-1, disk_full) as acts:
        small_runner(tmp_path, 2).train()
    assert acts == [*ONE_SAVE, *ONE_SAVE] * 2 + ['remove']


@pytest.mark.parametrize(('steps', 'checkpoint'), CASES)
def test_full_disk_at_every_call(tmp_path, steps, checkpoint):
    with faults(-1, disk_full) as acts:
        small_runner(tmp_path / 'whole', steps, checkpoint).train()
    assert acts.count('write') >= 10 and acts.count('remove') >= 2
    for at, act in enumerate(acts):
        folder = tmp_path / str(at)
        runner = small_runner(folder, steps, checkpoint)
        with faults(at, disk_full):
            if act == 'fsync folder':
                # Where a folder cannot be written through, the file is whole all the same.
                runner.train()
            else:
                with pytest.raises(DistillError, match=r'^The disk is full .*--resume\.$'):
                    runner.train()
        assert files(folder, '*.unfinished') == []
        everything_is_whole(folder)
        goes_on(folder, runner.iter, steps, checkpoint)


@pytest.mark.parametrize(('steps', 'checkpoint'), CASES)
def test_killed_at_every_call(tmp_path, steps, checkpoint):
    with faults(-1, killed) as acts:
        small_runner(tmp_path / 'whole', steps, checkpoint).train()
    for at in range(len(acts)):
        folder = tmp_path / str(at)
        runner = small_runner(folder, steps, checkpoint)

        def die(runner=runner, folder=folder):
            (folder / 'reached').write_text(str(runner.iter))
            killed()

        def train(runner=runner, at=at, die=die):
            with faults(at, die):
                runner.train()

        assert in_child(train) == 9
        everything_is_whole(folder)
        goes_on(folder, int((folder / 'reached').read_text()), steps, checkpoint)


def test_full_disk_tells_what_a_checkpoint_takes(tmp_path):
    with faults(1, disk_full), pytest.raises(DistillError) as caught:
        small_runner(tmp_path).train()
    assert str(tmp_path) in str(caught.value) and 'a checkpoint takes about 0.0 MB' in str(caught.value)


def test_another_error_of_the_system_stays_what_it_is(tmp_path):
    def denied() -> None:
        raise PermissionError(13, 'Permission denied')

    with faults(1, denied), pytest.raises(PermissionError):
        small_runner(tmp_path).train()
    assert files(tmp_path, '*.unfinished') == []


@pytest.mark.parametrize('kept', [-1, 1, 2])
def test_number_kept(tmp_path, kept):
    small_runner(tmp_path, 4, dict(max_keep_ckpts=kept)).train()
    expected = {-1: [1, 2, 3, 4], 1: [4], 2: [3, 4]}[kept]
    assert files(tmp_path) == [f'iter_{step}.pth' for step in expected]


def test_number_kept_counts_on_after_resuming(tmp_path):
    small_runner(tmp_path, 3, dict(max_keep_ckpts=2)).train()
    small_runner(tmp_path, 5, dict(max_keep_ckpts=2), resume=True).train()
    assert files(tmp_path) == ['iter_4.pth', 'iter_5.pth']


def test_best_is_kept_by_its_rule(tmp_path):
    small_runner(tmp_path, 4, TWO_BEST).train()
    assert files(tmp_path) == ['best_acc_iter_2.pth', 'best_loss_iter_3.pth', 'iter_4.pth']
    runner = small_runner(tmp_path, 5, TWO_BEST, resume=True)
    runner.train()
    assert files(tmp_path) == ['best_acc_iter_5.pth', 'best_loss_iter_3.pth', 'iter_5.pth']
    assert runner.message_hub.get_info('best_ckpt_acc') == str(tmp_path / 'best_acc_iter_5.pth')


def test_best_found_by_itself(tmp_path):
    small_runner(tmp_path, 3, dict(save_best='auto')).train()
    assert files(tmp_path) == ['best_acc_iter_2.pth', 'iter_3.pth']


def test_best_alone(tmp_path):
    """Without regular checkpoints nothing is saved again, and the old best is removed all the same."""
    small_runner(tmp_path, 3, dict(interval=-1, save_last=False, **BEST)).train()
    assert files(tmp_path) == ['best_acc_iter_2.pth']


def test_a_copied_run_leaves_the_best_of_the_original_alone(tmp_path):
    small_runner(tmp_path / 'old', 3, BEST).train()
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    small_runner(tmp_path / 'new', 5, BEST, resume=True).train()
    assert files(tmp_path / 'old') == ['best_acc_iter_2.pth', 'iter_3.pth']
    assert files(tmp_path / 'new') == ['best_acc_iter_5.pth', 'iter_5.pth']


def test_counting_epochs(tmp_path):
    loop = dict(by_epoch=True, max_epochs=2, val_interval=9)
    small_runner(tmp_path, train_cfg=loop, checkpoint=dict(by_epoch=True)).train()
    assert files(tmp_path) == ['epoch_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').unlink()
    runner = small_runner(tmp_path, train_cfg={**loop, 'max_epochs': 3}, checkpoint=dict(by_epoch=True), resume=True)
    runner.train()
    assert began(runner) == 8 and files(tmp_path) == ['epoch_3.pth']


def test_another_folder_for_checkpoints(tmp_path):
    out = dict(out_dir=str(tmp_path / 'out'))
    small_runner(tmp_path / 'run', 2, out).train()
    assert files(tmp_path / 'out/run') == ['iter_2.pth'] and files(tmp_path / 'run') == []
    (tmp_path / 'run/last_checkpoint').unlink()
    runner = small_runner(tmp_path / 'run', 3, out, resume=True)
    runner.train()
    assert began(runner) == 2 and files(tmp_path / 'out/run') == ['iter_3.pth']


def test_published_checkpoint_has_the_keys_alone(tmp_path):
    small_runner(tmp_path, 2, dict(published_keys=['meta', 'state_dict'], **BEST)).train()
    published = files(tmp_path, '*-*.pth')
    assert [name.split('-')[0] for name in published] == ['best_acc_iter_2', 'iter_2']
    content = load_checkpoint_file(str(tmp_path / published[1]))
    assert list(content) == ['meta', 'state_dict']
    whole = load_checkpoint_file(str(tmp_path / 'iter_2.pth'))['state_dict']
    assert all(torch.equal(content['state_dict'][key], whole[key]) for key in whole)


def test_without_the_optimizer(tmp_path):
    small_runner(tmp_path, 1, dict(save_optimizer=False)).train()
    assert 'optimizer' not in load_checkpoint_file(str(tmp_path / 'iter_1.pth'))


def test_settings_for_other_file_systems_are_passed_on(tmp_path):
    small_runner(tmp_path, 1, dict(backend_args=dict(backend='local'))).train()
    small_runner(tmp_path / 'old', 1, dict(file_client_args=dict(backend='disk'))).train()
    assert files(tmp_path) == files(tmp_path / 'old') == ['iter_1.pth']


@pytest.mark.parametrize('kind', ['CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook])
def test_mmengines_hook_is_replaced(tmp_path, kind):
    config = dict(type=kind, interval=7, priority='LOW')
    runner = small_runner(tmp_path, default_hooks=dict(checkpoint=config))
    hook = hook_of(runner)
    assert type(hook) is WholeCheckpointHook and hook.interval == 7 and hook.priority == 'LOW'
    assert config == dict(type=kind, interval=7, priority='LOW')


@HOOKS.register_module()
class OwnCheckpointHook(CheckpointHook):
    """A user's."""


def test_a_hook_of_the_users_own_stays(tmp_path):
    runner = small_runner(tmp_path, checkpoint=dict(type='mmkd_plugin.OwnCheckpointHook'))
    assert type(hook_of(runner)) is OwnCheckpointHook
    runner.train()
    everything_is_whole(tmp_path)
