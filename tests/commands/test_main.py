"""The command finds its subcommands, says which there are, and names what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmkd_plugin.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    """A new interpreter at the root of the project, which knows the package even without its site-packages."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(['--help'])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for name, line in COMMANDS.items():
        assert any(text.split()[:1] == [name] and text.endswith(line) for text in shown.splitlines())


@pytest.mark.parametrize('arguments', [['layer'], [], ['--layers']])
def test_anything_else_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert 'COMMAND' in capsys.readouterr().err


def test_unknown_command_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['layer'])
    shown = capsys.readouterr().err
    assert all(name in shown for name in ('doctor', 'print-config', 'layers', 'visualize'))


def test_help_needs_no_package() -> None:
    done = run('-S', '-m', 'mmkd_plugin', '--help')
    assert done.returncode == 0, done.stderr
    assert 'print-config' in done.stdout


@pytest.mark.parametrize('tool', sorted(path.name for path in (ROOT / 'tools').glob('*.py')))
def test_help_of_a_tool_needs_no_package_either(tool: str) -> None:
    done = run('-S', f'tools/{tool}', '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: ')


def test_missing_package_is_one_sentence() -> None:
    done = run('-S', '-m', 'mmkd_plugin', 'layers', 'student.py')
    assert done.returncode == 2
    assert done.stderr.startswith('error: A package cannot be imported (No module named')
    assert '"mmkd doctor" names what to install' in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize('tool', ['-m mmkd_plugin doctor', 'tools/doctor.py'])
def test_doctor_takes_no_arguments(tool: str) -> None:
    done = run('-S', *tool.split(), 'now')
    assert done.returncode == 2
    assert 'unrecognized arguments: now' in done.stderr
    assert done.stdout == ''


@pytest.mark.parametrize('name', ['doctor', 'print-config', 'visualize'])
def test_tool_of_the_clone_is_the_command(name: str) -> None:
    done = run(f'tools/{name.replace("-", "_")}.py', '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: mmkd {name} ')


def test_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(\n')
    for config, sentence in (
        ('no_such.py', 'The config file "no_such.py" does not exist; give the path'),
        ('mmkd_plugin::coco_mini/retina_r17.py', 'did you mean "mmkd_plugin::coco_mini/retina_r18.py"'),
        (str(broken), f'The config "{broken}" cannot be read (SyntaxError: '),
        ('mmkd_plugin::coco_mini/retina_r18.py', 'The config has no distill block'),
    ):
        with pytest.raises(SystemExit) as ended:
            main(['print-config', config])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.startswith('error: ') and error.count('\n') == 1
