"""Checkpoints under safe loading: MMEngine's own load, everything else is refused before it can act."""

from __future__ import annotations

import functools
import os
import pickle
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers.checkpoints import Gadget, make_runner, save
from mmengine.logging import HistoryBuffer

from mmkd_plugin.compat.checkpoint import load_checkpoint_file, readable_refusal
from mmkd_plugin.errors import DistillError


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that MMEngine's own runner saved."""
    folder = tmp_path_factory.mktemp('trained')
    make_runner(folder).train()
    return folder / 'iter_4.pth'


def rename_module(source: Path, target: Path, old: bytes, new: bytes) -> str:
    """Copy a checkpoint with the name of a module changed, as another version of numpy would have written it."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, 'w') as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith('data.pkl'):
                content = content.replace(old, new)
                assert new in content
            copy.writestr(name, content)
    return str(target)


def test_checkpoint_of_mmengine_loads(trained: Path) -> None:
    checkpoint = load_checkpoint_file(str(trained))
    meta = checkpoint['meta']['dataset_meta']
    assert meta['classes'] == ('cat', 'dog')
    assert meta['palette'] == [(255, 0, 0), (0, 255, 0)]
    assert meta['sigmas'].tolist() == [0.25, 0.5]
    assert meta['count'] == 7
    assert meta['label_map'] == dict(cat=dict(old=0, new=1))
    assert len(checkpoint['message_hub']['log_scalars']['train/loss'].data[0]) == 4
    assert {'optimizer', 'param_schedulers', 'ema_state_dict'} <= set(checkpoint)


def test_runner_resumes_its_own_checkpoint(trained: Path, tmp_path: Path) -> None:
    runner = make_runner(tmp_path, iterations=5, load_from=str(trained), resume=True)
    with readable_refusal(str(trained)):
        runner.train()
    assert runner.iter == 5
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 5


def test_statistics_of_a_loaded_history_work(tmp_path: Path) -> None:
    path = save(dict(history=HistoryBuffer([1.0, 5.0], [1, 1])), tmp_path / 'a.pth')
    history = load_checkpoint_file(path)['history']
    assert history.statistics('mean', 2) == 3.0
    assert history.statistics('max', 2) == 5.0


@pytest.mark.parametrize('module', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_both_module_paths_of_numpy_load(trained: Path, tmp_path: Path, module: bytes) -> None:
    other = b'numpy._core.multiarray' if module == b'numpy.core.multiarray' else b'numpy.core.multiarray'
    path = rename_module(trained, tmp_path / 'renamed.pth', other, module)
    assert load_checkpoint_file(path)['meta']['dataset_meta']['sigmas'].tolist() == [0.25, 0.5]


def test_old_file_format_loads(tmp_path: Path) -> None:
    path = save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    assert load_checkpoint_file(path)['state_dict']['w'].tolist() == [1.0, 1.0]


@pytest.mark.parametrize('zip_format', [True, False])
def test_attack_is_refused_by_name_and_does_not_run(tmp_path: Path, mark: Path, zip_format: bool) -> None:
    attack = Gadget(os.system, f'touch {mark}')
    path = save(dict(state_dict=attack), tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format)
    with pytest.raises(DistillError, match=r'holds posix\.system.*trust_checkpoint=True in the distill block\.$'):
        load_checkpoint_file(path)
    assert not mark.exists()


def test_attack_hidden_in_the_message_hub_does_not_run(trained: Path, tmp_path: Path, mark: Path) -> None:
    checkpoint = load_checkpoint_file(str(trained))
    checkpoint['message_hub']['runtime_info']['note'] = Gadget(os.system, f'touch {mark}')
    path = save(checkpoint, tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'posix\.system'):
        load_checkpoint_file(path)
    assert not mark.exists()


def test_attack_hidden_in_the_state_of_a_history_does_not_run(tmp_path: Path, mark: Path) -> None:
    history = HistoryBuffer([1.0], [1])
    history.__dict__['note'] = Gadget(os.system, f'touch {mark}')
    with pytest.raises(DistillError, match=r'posix\.system'):
        load_checkpoint_file(save(dict(history=history), tmp_path / 'a.pth'))
    assert not mark.exists()


@pytest.mark.parametrize('name', ['__init__', '__subclasses__', '__globals__', 'register_statistics', 'statistics'])
def test_getattr_answers_nothing_but_statistics(tmp_path: Path, name: str) -> None:
    path = save(dict(gadget=Gadget(getattr, HistoryBuffer, name)), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'builtins\.getattr'):
        load_checkpoint_file(path)


def test_getattr_answers_for_no_other_object(tmp_path: Path) -> None:
    path = save(dict(gadget=Gadget(getattr, np.ndarray, 'max')), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'builtins\.getattr'):
        load_checkpoint_file(path)


def test_statistic_cannot_be_called_by_the_file(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple:
            return HistoryBuffer.mean, (HistoryBuffer([1.0], [1]),)

    with pytest.raises(DistillError, match='cannot be read safely'):
        load_checkpoint_file(save(dict(value=Call()), tmp_path / 'a.pth'))


def test_all_offending_types_are_named(tmp_path: Path) -> None:
    path = save(dict(a=Gadget(os.getcwd), b=functools.partial(print, 1)), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'holds .*builtins\.print.*functools\.partial.*posix\.getcwd, which'):
        load_checkpoint_file(path)


def test_trust_loads_the_file(tmp_path: Path, mark: Path) -> None:
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    assert load_checkpoint_file(path, trust=True)['note'] == 0
    assert mark.exists()


def test_trust_ends_with_the_call(tmp_path: Path, mark: Path) -> None:
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    before = torch.load
    load_checkpoint_file(path, trust=True)
    mark.unlink()
    with pytest.raises(DistillError, match=r'posix\.system'):
        load_checkpoint_file(path)
    assert torch.load is before
    assert not mark.exists()


def test_trust_ends_with_a_failed_call(tmp_path: Path) -> None:
    before = torch.load
    with pytest.raises(DistillError, match='does not exist'):
        load_checkpoint_file(str(tmp_path / 'none.pth'), trust=True)
    assert torch.load is before


def test_trust_holds_for_its_own_thread_only(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    errors: list[BaseException] = []

    def load_elsewhere() -> None:
        try:
            torch.load(path, weights_only=True)
        except pickle.UnpicklingError as error:
            errors.append(error)

    def load_here(*args: Any, **kwargs: Any) -> None:
        other = threading.Thread(target=load_elsewhere)
        other.start()
        other.join()
        torch.load(path)

    monkeypatch.setattr('mmkd_plugin.compat.checkpoint.CheckpointLoader.load_checkpoint', load_here)
    load_checkpoint_file(path, trust=True)
    assert len(errors) == 1
    assert mark.exists()


@pytest.mark.parametrize('caught', [pickle.UnpicklingError, DistillError, Exception])
def test_loader_that_tries_again_without_a_check_runs_nothing(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, caught: type[Exception]
) -> None:
    tries = []

    def load_twice(path: str, *args: Any, **kwargs: Any) -> Any:
        for safely in (True, False):
            try:
                tries.append(safely)
                return torch.load(path, weights_only=safely)
            except caught:
                if not safely:
                    raise
        return None

    monkeypatch.setattr('mmkd_plugin.compat.checkpoint.CheckpointLoader.load_checkpoint', load_twice)
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'holds posix\.system'):
        load_checkpoint_file(path)
    assert tries == ([True] if caught is pickle.UnpicklingError else [True, False])
    assert not mark.exists()


@pytest.mark.skipif(not hasattr(torch.serialization, 'safe_globals'), reason='this torch has no such list')
def test_what_others_allow_in_the_process_does_not_hold(tmp_path: Path) -> None:
    path = save(dict(gadget=Gadget(getattr, HistoryBuffer, '__init__'), other=threading.local), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([getattr, threading.local]), pytest.raises(DistillError) as caught:
        load_checkpoint_file(path)
    assert 'holds _thread._local, which' in str(caught.value)
    path = save(dict(gadget=Gadget(getattr, HistoryBuffer, '__init__')), tmp_path / 'b.pth')
    with torch.serialization.safe_globals([getattr]), pytest.raises(DistillError, match=r'builtins\.getattr'):
        load_checkpoint_file(path)


def test_reading_within_reading_names_file_and_type(tmp_path: Path) -> None:
    path = save(dict(note=Gadget(os.system, 'true')), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'a\.pth\) is refused because it holds posix'), readable_refusal('b.pth'):
        load_checkpoint_file(path)


def test_torch_switch_that_shuts_readers_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(DistillError, match=r'without TORCH_FORCE_WEIGHTS_ONLY_LOAD.*; unset that environment variable'):
        load_checkpoint_file(save(dict(a=1), tmp_path / 'a.pth'))


def test_environment_does_not_open_teacher_files(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'posix\.system'):
        load_checkpoint_file(path)
    assert not mark.exists()
