"""The command line must do what its help says and explain what it cannot do."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'make_coco_mini.py'


def run(*arguments: object) -> None:
    runpy.run_path(str(TOOL))['main']([str(argument) for argument in arguments])


def read(path: Path) -> dict:
    return json.loads(path.read_bytes())


@pytest.fixture
def source(small_set: Path, tmp_path: Path) -> Path:
    """A tree with one folder of images and two annotation files of its own naming."""
    root = tmp_path / 'source'
    root.mkdir()
    (root / 'images').symlink_to(small_set / 'train')
    for name in ('one.json', 'two.json'):
        (root / name).write_bytes((small_set / 'annotations' / 'instances_train.json').read_bytes())
    return root


def test_generates(tmp_path, capsys):
    run('--out', tmp_path / 'set', '--seed', 5, '--train', 3, '--val', 2, '--size', 64)
    info = read(tmp_path / 'set' / 'annotations' / 'instances_train.json')['info']
    assert (info['seed'], info['train'], info['val'], info['size']) == (5, 3, 2, 64)
    assert capsys.readouterr().out == f'{(tmp_path / "set").resolve()} is being made.\n'


def test_second_run_says_that_all_is_there(tmp_path, capsys):
    arguments = ['--out', tmp_path / 'set', '--train', 2, '--val', 1, '--size', 64]
    run(*arguments)
    capsys.readouterr()
    run(*arguments)
    assert capsys.readouterr().out == f'{(tmp_path / "set").resolve()} is complete.\n'


def test_default_folder_is_under_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run('--train', 1, '--val', 1, '--size', 64)
    assert (tmp_path / 'data' / 'coco_mini' / 'annotations' / 'instances_val.json').is_file()


def test_chooses_from_a_tree_in_cocos_layout(small_set, tmp_path, capsys):
    arguments = ['--from-coco', small_set, '--split-names', 'train', 'val', '--train', 3, '--val', 2, '--symlink']
    run(*arguments, '--out', tmp_path / 'set')
    assert len(read(tmp_path / 'set' / 'annotations' / 'instances_train.json')['images']) == 3
    assert all(path.is_symlink() for path in (tmp_path / 'set' / 'val').iterdir())


def test_chooses_from_a_tree_of_another_layout(source, tmp_path, capsys):
    places = ['--ann-train', 'one.json', '--img-train', 'images', '--ann-val', 'two.json', '--img-val', 'images']
    run('--from-coco', source, *places, '--train', 4, '--val', 3, '--out', tmp_path / 'set')
    assert len(list((tmp_path / 'set' / 'train').iterdir())) == 4
    assert len(list((tmp_path / 'set' / 'val').iterdir())) == 3


def refused(capsys, *arguments: object) -> str:
    """What the command says against a mistake, in one line and with status 2."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith('error: ') and said.count('\n') == 1
    return said


def test_missing_tree_ends_in_a_sentence(tmp_path, capsys):
    said = refused(capsys, '--from-coco', tmp_path / 'nowhere', '--out', tmp_path / 'set')
    assert 'nowhere/annotations/instances_train2017.json" but is not there' in said


def test_unwritable_folder_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / 'file').write_bytes(b'')
    said = refused(capsys, '--out', tmp_path / 'file' / 'set', '--train', 1, '--val', 1)
    assert 'cannot be read or written' in said and 'is a file, give' in said


def test_annotations_that_are_no_json_end_in_a_sentence(source, tmp_path, capsys):
    (source / 'one.json').write_text('{"images": [')
    places = ['--ann-train', 'one.json', '--img-train', 'images', '--ann-val', 'two.json', '--img-val', 'images']
    said = refused(capsys, '--from-coco', source, *places, '--train', 1, '--val', 1, '--out', tmp_path / 'set')
    assert 'one.json' in said


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--symlink'], '--symlink needs --from-coco'),
        (['--maps'], '--maps needs --from-coco'),
        (['--ann-val', 'x.json'], '--ann-val needs --from-coco'),
        (['--from-coco', 'x', '--size', '64'], '--size is for generated images'),
    ],
)
def test_options_that_would_have_no_effect_are_refused(arguments, sentence, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert sentence in capsys.readouterr().err
