"""Checkpoints under safe loading: MMEngine's own load, everything else is refused before it can act."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
import urllib.error
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmkd_plugin.compat.checkpoint import load_checkpoint_file, readable_refusal
from mmkd_plugin.errors import DistillError

# The first bytes of files that torch.save did not write.
PAGE = b'<!DOCTYPE html><html><body>404 Not Found</body></html>'
OTHER_PICKLE = pickle.dumps({'model': 1}, protocol=4)


class Gadget:
    """Pickles as a call, the way an attack does."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


class Numbers(Dataset):
    """Eight vectors and meta information of every kind that data sets carry."""

    metainfo = dict(
        classes=('cat', 'dog'),
        palette=[(255, 0, 0), (0, 255, 0)],
        sigmas=np.array([0.25, 0.5]),
        count=np.int64(7),
        label_map=ConfigDict(cat=dict(old=0, new=1)),
    )

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.full((3,), float(index)))


class Line(BaseModel):
    """A linear layer that learns to answer zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Any, mode: str = 'tensor') -> Any:
        out = self.layer(torch.stack(x) if isinstance(x, list) else x)
        return dict(loss=out.pow(2).mean()) if mode == 'loss' else out


def make_runner(work_dir: Path, iterations: int = 4, **options: Any) -> Runner:
    """A runner whose checkpoint holds all that MMEngine can put into one."""
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(dataset=Numbers(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[
            dict(type='OneCycleLR', eta_max=0.01, total_steps=iterations, by_epoch=False),
            dict(type='MultiStepLR', milestones=[2], by_epoch=False),
        ],
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False),
            logger=dict(type='LoggerHook', interval=1),
        ),
        default_scope='mmengine',
        log_level='ERROR',
        experiment_name=f'checkpoint_{work_dir.name}',
        **options,
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that MMEngine's own runner saved."""
    folder = tmp_path_factory.mktemp('trained')
    make_runner(folder).train()
    return folder / 'iter_4.pth'


@pytest.fixture()
def mark(tmp_path: Path) -> Path:
    """A file that exists only if an attack ran."""
    return tmp_path / 'attacked'


def save(content: Any, path: Path, **options: Any) -> str:
    """Save and give the path as users write it."""
    torch.save(content, path, **options)
    return str(path)


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
            torch.load(path)
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


def test_environment_does_not_open_teacher_files(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    with pytest.raises(DistillError, match=r'posix\.system'):
        load_checkpoint_file(path)
    assert not mark.exists()


def test_missing_file() -> None:
    with pytest.raises(DistillError, match=r'^The checkpoint "no/such\.pth" does not exist; check the path\.$'):
        load_checkpoint_file('no/such.pth')


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize('zip_format', [True, False])
@pytest.mark.parametrize('kept', [0.02, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, zip_format: bool, kept: float, trust: bool) -> None:
    path = tmp_path / 'a.pth'
    save(dict(w=torch.ones(1000)), path, _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DistillError, match=r'a\.pth" is incomplete or damaged; download or copy it again\.$'):
        load_checkpoint_file(str(path), trust=trust)


def test_trusted_file_keeps_the_errors_of_what_it_holds(tmp_path: Path) -> None:
    path = save(dict(note=Gadget(int, 'no number')), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='invalid literal for int'):
        load_checkpoint_file(path, trust=True)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize(
    ('content', 'words'),
    [(PAGE, 'is a web page'), (b'', 'is empty'), (OTHER_PICKLE, 'was not written by torch.save')],
    ids=['page', 'empty', 'pickle'],
)
def test_file_that_is_no_checkpoint(tmp_path: Path, content: bytes, words: str, trust: bool) -> None:
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(DistillError, match=words):
        load_checkpoint_file(str(path), trust=trust)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every file')
def test_unreadable_file_keeps_its_own_error(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    save(dict(w=torch.ones(1)), path)
    path.chmod(0)
    with pytest.raises(PermissionError):
        load_checkpoint_file(str(path))


def test_unknown_zoo_name() -> None:
    with pytest.raises(DistillError, match=r'"no_such_model" is not a checkpoint that open-mmlab:// knows'):
        load_checkpoint_file('open-mmlab://no_such_model')


@pytest.fixture()
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local web server that offers ``tmp_path/www``; downloads go to ``tmp_path/hub``."""
    (tmp_path / 'www').mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    handler = functools.partial(QuietHandler, directory=str(tmp_path / 'www'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}'
        httpd.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def test_address_loads(server: str, tmp_path: Path) -> None:
    save(dict(state_dict=dict(w=torch.ones(1))), tmp_path / 'www/a.pth')
    assert load_checkpoint_file(f'{server}/a.pth')['state_dict']['w'].item() == 1.0


def test_attack_behind_an_address_does_not_run(server: str, tmp_path: Path, mark: Path) -> None:
    save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'www/a.pth')
    with pytest.raises(DistillError, match=r'posix\.system'):
        load_checkpoint_file(f'{server}/a.pth')
    assert not mark.exists()


def test_web_page_behind_an_address_names_the_file_to_delete(server: str, tmp_path: Path) -> None:
    (tmp_path / 'www/a.pth').write_bytes(PAGE)
    with pytest.raises(DistillError, match=r'hub/hub/checkpoints/a\.pth\) is a web page'):
        load_checkpoint_file(f'{server}/a.pth')


def test_address_without_a_file(server: str) -> None:
    with pytest.raises(DistillError, match=r'cannot be downloaded \(HTTP Error 404.*check the address') as caught:
        load_checkpoint_file(f'{server}/none.pth')
    assert isinstance(caught.value.__cause__, urllib.error.HTTPError)


def test_refusal_of_a_file_that_mmengine_reads(tmp_path: Path, mark: Path) -> None:
    path = save(dict(state_dict=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    runner = make_runner(tmp_path)
    refusal = pytest.raises(DistillError, match=r'posix\.system.*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1\.$')
    with refusal, readable_refusal(path):
        runner.load_checkpoint(path)
    assert not mark.exists()


def test_refusal_covers_addresses_that_mmengine_reads(server: str, tmp_path: Path, mark: Path) -> None:
    save(dict(state_dict=Gadget(os.system, f'touch {mark}')), tmp_path / 'www/a.pth')
    runner = make_runner(tmp_path)
    with pytest.raises(DistillError, match=r'posix\.system'), readable_refusal(f'{server}/a.pth'):
        runner.load_checkpoint(f'{server}/a.pth')
    assert not mark.exists()


def test_readable_refusal_keeps_other_errors(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='size mismatch'), readable_refusal('a.pth'):
        raise RuntimeError('size mismatch for layer.weight')


def test_torch_switch_of_the_user_opens_files_that_mmengine_reads(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = save(dict(note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    with readable_refusal(path):
        torch.load(path)
    assert mark.exists()
