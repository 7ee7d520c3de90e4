"""Publishing keeps the source, writes whole files, and refuses what holds no weights in one sentence."""

from __future__ import annotations

import os
import runpy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers.checkpoints import Gadget

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.publish import publish_checkpoint

TOOL = Path(__file__).resolve().parents[2] / 'tools/publish_checkpoint.py'


@pytest.fixture()
def source(tmp_path: Path) -> Path:
    """A checkpoint of a training run."""
    state = OrderedDict(w=torch.ones(2), steps=torch.tensor(3))
    state._metadata = {'': dict(version=2)}  # type: ignore[attr-defined]
    meta = dict(dataset_meta=dict(classes=('a', 'b')), cfg='secret = 1', epoch=3)
    torch.save(dict(state_dict=state, optimizer=dict(lr=1), meta=meta, distill_state={}), tmp_path / 'iter_3.pth')
    return tmp_path / 'iter_3.pth'


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL))['main']([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


@pytest.mark.parametrize('half', [False, True])
def test_weights_and_classes_are_left(source: Path, tmp_path: Path, half: bool) -> None:
    size = publish_checkpoint(source, tmp_path / 'new/student.pth', half)
    published = load_checkpoint_file(str(tmp_path / 'new/student.pth'))
    assert size == (tmp_path / 'new/student.pth').stat().st_size
    assert published['meta'] == dict(dataset_meta=dict(classes=('a', 'b')))
    assert set(published) == {'meta', 'state_dict'}
    assert published['state_dict']['w'].dtype is (torch.half if half else torch.float)
    assert published['state_dict']['steps'].tolist() == 3
    assert published['state_dict']._metadata == {'': dict(version=2)}


def test_bare_weights_are_published(tmp_path: Path) -> None:
    torch.save(dict(w=torch.ones(2)), tmp_path / 'bare.pth')
    publish_checkpoint(tmp_path / 'bare.pth', tmp_path / 'out.pth')
    assert load_checkpoint_file(str(tmp_path / 'out.pth'))['state_dict']['w'].tolist() == [1, 1]


def test_classes_of_former_versions_are_published(tmp_path: Path) -> None:
    meta = dict(CLASSES=('a', 'b'), PALETTE=np.array([[1, 2, 3], [4, 5, 6]]), epoch=3)
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=meta), tmp_path / 'old.pth')
    publish_checkpoint(tmp_path / 'old.pth', tmp_path / 'out.pth')
    wanted = dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]])
    assert torch.load(tmp_path / 'out.pth', weights_only=True)['meta'] == dict(dataset_meta=wanted)


@pytest.mark.parametrize('way', ['same', 'spelled', 'symlink', 'hard link'])
def test_source_is_never_overwritten(
    source: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / 'link.pth'
    if way == 'same':
        target = source
    elif way == 'spelled':
        (tmp_path / 'folder').mkdir()
        target = Path('folder/../iter_3.pth')
    elif way == 'symlink':
        target.symlink_to(source)
    else:
        os.link(source, target)
    before = source.read_bytes()
    assert f'"{target}" is the checkpoint itself' in said(capsys, source, target)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ('content', 'found'),
    [([torch.ones(1)], 'a list'), (torch.ones(1), 'a Tensor'), (dict(state_dict=[1]), "a dict of 'state_dict'")],
    ids=['list', 'tensor', 'no weights'],
)
def test_file_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, found: str) -> None:
    torch.save(content, tmp_path / 'a.pth')
    assert f'a.pth" holds no weights of a model but {found}; give' in said(
        capsys, tmp_path / 'a.pth', tmp_path / 'b.pth'
    )
    assert not (tmp_path / 'b.pth').exists()


def test_attack_is_refused_with_a_switch_that_the_command_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / 'attacked'
    torch.save(dict(state_dict=dict(w=torch.ones(1)), note=Gadget(os.system, f'touch {mark}')), tmp_path / 'a.pth')
    error = said(capsys, tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert 'holds posix.system' in error
    assert 'if you trust its source, set the environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1.' in error
    assert 'trust_checkpoint' not in error
    assert not mark.exists()
    # Its author's own file opens with what the sentence says.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    publish_checkpoint(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert (tmp_path / 'b.pth').exists()


def test_target_is_whole_or_as_it_was(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / 'student.pth'
    target.write_bytes(b'earlier')

    def fill(path: Path, content: Any) -> None:
        with path.open('wb') as stream:
            stream.write(bytes(content)[:7])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', fill)
    with pytest.raises(
        DistillError, match=r'student\.pth" cannot be written \(No space left on device\); give a place'
    ):
        publish_checkpoint(source, target)
    assert target.read_bytes() == b'earlier'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['iter_3.pth', 'student.pth']


def test_target_that_can_be_no_file(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f'"{tmp_path}" is a folder' in said(capsys, source, tmp_path)
    (tmp_path / 'file').write_text('')
    assert 'cannot be written (' in said(capsys, source, tmp_path / 'file/student.pth')
    assert '"/dev/null" is a device' in said(capsys, source, '/dev/null')
    assert Path('/dev/null').is_char_device()


def test_missing_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'none.pth" does not exist' in said(capsys, tmp_path / 'none.pth', tmp_path / 'b.pth')
