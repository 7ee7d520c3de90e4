"""A checkpoint that cannot be read, here or behind an address, ends in one sentence."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.checkpoints import Gadget, make_runner, save

from mmkd_plugin.compat.checkpoint import load_checkpoint_file, readable_refusal
from mmkd_plugin.errors import DistillError

# The first bytes of files that torch.save did not write.
PAGE = b'<!DOCTYPE html><html><body>404 Not Found</body></html>'
OTHER_PICKLE = pickle.dumps({'model': 1}, protocol=4)


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
