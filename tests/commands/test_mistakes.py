"""What is typed wrongly on a command line ends in one sentence with the fix."""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmkd_plugin.__main__ import COMMANDS, main
from mmkd_plugin.cli import add_config_options, load_config, override, plain_errors
from mmkd_plugin.errors import DistillError

ROOT = Path(__file__).resolve().parents[2]
FGD = 'mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py'
TOOLS = ('compare', 'demo', 'make_coco_mini', 'publish_checkpoint', 'test', 'train')


def run_tool(name: str, *arguments: object) -> None:
    """Run a tool of the clone in this process."""
    runpy.run_path(str(ROOT / f'tools/{name}.py'))['main']([str(argument) for argument in arguments])


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command of ``mmkd`` ends."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_can_show_the_whole(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_tool(tool, '--help')
    assert ended.value.code == 0
    assert '--traceback' in capsys.readouterr().out


@pytest.mark.parametrize('command', [*COMMANDS, 'visualize similarity', 'visualize imitation-mask'])
def test_every_command_can_show_the_whole(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), '--help'])
    assert ended.value.code == 0
    assert '--traceback' in capsys.readouterr().out


def test_traceback_shows_the_whole_of_a_mistake() -> None:
    with pytest.raises(DistillError, match='no_such.py'):
        main(['print-config', 'no_such.py', '--traceback'])


def test_traceback_shows_the_whole_of_what_is_retold(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, plain_errors([]):
        Path('no/such/file.json').read_text()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        'error: "no/such/file.json" does not exist; check the path. (--traceback shows the whole.)\n'
    )
    with pytest.raises(FileNotFoundError), plain_errors(['--traceback']):
        Path('no/such/file.json').read_text()


def test_fault_of_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), plain_errors([]):
        raise ZeroDivisionError


def test_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, plain_errors([], 'the same command goes on.'):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == 'interrupted; the same command goes on.\n'
    with pytest.raises(KeyboardInterrupt), plain_errors(['--traceback']):
        raise KeyboardInterrupt


def test_reader_that_has_seen_enough_is_no_error() -> None:
    code = (
        'from mmkd_plugin.cli import plain_errors\n'
        'with plain_errors([]):\n    for line in range(10**6):\n        print("some line", line)\n'
    )
    child = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == ''
    child.stderr.close()
    assert child.wait() == 141


@pytest.mark.parametrize('tool', ['train', 'test', 'compare'])
def test_mistake_in_a_tool_has_status_two(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_tool(tool, 'no_such.py', 'no_such.py', *(['--cfg-options', 'oops'] if tool != 'train' else []))
    assert ended.value.code == 2


@pytest.mark.parametrize('pair', ['oops', '=1', 'model..depth=1', 'a', '.=1'])
def test_override_without_key_or_value(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f'--cfg-options takes KEY=VALUE, as in train_cfg.max_epochs=3, but "{pair}" is none' in said(
        capsys, 'print-config', FGD, '--cfg-options', pair
    )


def test_override_with_an_open_bracket(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'cannot read "a=[1,2" (Imbalanced brackets' in said(capsys, 'print-config', FGD, '--cfg-options', 'a=[1,2')


def parsed(*arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(arguments).cfg_options


def test_overrides_are_those_of_mmengine() -> None:
    assert parsed('--cfg-options', 'a.b=1', 'c=[1,2]', 'd=x=y', '--cfg-options', 'e=(1.5,True)') == {
        'a.b': 1,
        'c': [1, 2],
        'd': 'x=y',
        'e': (1.5, True),
    }
    assert parsed() is None


@pytest.mark.parametrize(
    ('option', 'value'), [('model.type.x', 1), ('steps.5.a', 1), ('steps.first', 1), ('distill.teacher.depth', 1)]
)
def test_override_of_what_is_not_there(option: str, value: int) -> None:
    cfg = Config(dict(model=dict(type='RetinaNet'), steps=[dict(a=0)], distill=dict(teacher='a.py')))
    with pytest.raises(DistillError, match=rf'^--cfg-options {option}=1 cannot be applied to the config \('):
        override(cfg, {option: value})


def test_overrides_are_applied() -> None:
    cfg = Config(dict(model=dict(type='RetinaNet'), steps=[dict(a=0)]))
    override(cfg, {'steps.0.a': 3, 'model.depth': 18})
    override(cfg, None)
    assert cfg.steps[0].a == 3 and cfg.model.depth == 18


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ("_base_ = 'mmkd_plugin::_base_/fgi/one_stag.py'", 'did you mean "mmkd_plugin::_base_/fgi/one_stage.py"'),
        ("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coc.py'", '"mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"'),
        ("_base_ = 'mmkd_plugn::_base_/fgi/one_stage.py'", 'builds on "mmkd_plugn::", a package that is not known'),
        ("_base_ = ['base_configg.py']", 'base_configg.py", which does not exist; did you mean "'),
        ('model = dict(', 'cannot be read (SyntaxError: '),
        ('model = 1 / 0', 'cannot be read (ZeroDivisionError: division by zero)'),
    ],
    ids=['recipe', 'zoo', 'package', 'file', 'syntax', 'code'],
)
def test_config_that_cannot_be_read(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / 'base_config.py').write_text('model = dict()')
    (tmp_path / 'mine.py').write_text(text)
    with pytest.raises(DistillError) as caught:
        load_config(str(tmp_path / 'mine.py'))
    assert str(caught.value).startswith(f'The config "{tmp_path}/mine.py" ')
    assert sentence in str(caught.value)


def test_config_that_is_none(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('model')
    with pytest.raises(DistillError, match=r'notes\.txt" cannot be read \(OSError: Only py/yml/yaml/json'):
        load_config(str(tmp_path / 'notes.txt'))
    with pytest.raises(DistillError, match=r'is a folder; give a \.py file in it\.$'):
        load_config(str(tmp_path))


def test_missing_config_has_its_nearest_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'retina_r18.py').write_text('')
    monkeypatch.chdir(tmp_path.parent)
    typed = f'{tmp_path.name}/retina_r8.py'
    with pytest.raises(DistillError, match=rf'did you mean "{tmp_path.name}/retina_r18\.py"\?$'):
        load_config(typed)


def test_printed_config_makes_its_folder(tmp_path: Path) -> None:
    out = tmp_path / 'new/folder/expanded.py'
    assert main(['print-config', FGD, '--out', str(out)]) == 0
    assert Config.fromfile(out).model.type == 'mmkd_plugin.DistillAlgorithm'
    assert [path.name for path in out.parent.iterdir()] == ['expanded.py']


def test_printed_config_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'x.txt is no .py file' in said(capsys, 'print-config', FGD, '-o', tmp_path / 'x.txt')
    (tmp_path / 'file').write_text('')
    assert 'cannot be written (' in said(capsys, 'print-config', FGD, '-o', tmp_path / 'file/x.py')
    (tmp_path / 'folder.py').mkdir()
    assert 'folder.py" is a folder' in said(capsys, 'print-config', FGD, '-o', tmp_path / 'folder.py')


def test_printed_config_never_takes_the_place_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = '{FGD}'")
    (tmp_path / 'link.py').symlink_to(mine)
    assert 'is the config itself' in said(capsys, 'print-config', mine, '-o', tmp_path / 'link.py')
    assert mine.read_text() == f"_base_ = '{FGD}'"


def test_picture_never_takes_the_place_of_the_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / 'a.png'
    image.write_bytes(b'png')
    arguments = [FGD, 'a.pth', '--image', image, '--pixel', 1, 1, '--out', f'{tmp_path}/../{tmp_path.name}/a.png']
    assert 'is the image itself' in said(capsys, 'visualize', 'similarity', *arguments)
    assert image.read_bytes() == b'png'


def test_similarity_of_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [FGD, 'a.pth', '--image', tmp_path / 'a.png', '--pixel', 1, 1]
    assert 'the RetinaNet of the config is none' in said(capsys, 'visualize', 'similarity', *arguments)


@pytest.mark.parametrize('place', ['a file', 'below a file'])
def test_work_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    (tmp_path / 'file').write_text('')
    folder = tmp_path / ('file' if place == 'a file' else 'file/x')
    with pytest.raises(SystemExit) as ended:
        run_tool('train', ROOT / 'configs/coco_mini/retina_r18.py', '--work-dir', folder)
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ') and f'"{folder}"' in error
