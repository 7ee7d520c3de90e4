"""The command prints the report, for people or as JSON, and its status tells whether something will not work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _helpers.machines import STACKS, Fake, missing

from mmkd_plugin.commands import doctor
from mmkd_plugin.compat.doctor import examine

ROOT = Path(__file__).resolve().parents[2]
NO_OPS = {'mmcv._ext': missing('mmcv._ext')}


def answer(machine: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command examine another machine."""
    monkeypatch.setattr(doctor, 'examine', lambda: examine(machine))


def test_status_is_one_where_something_will_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(Fake(broken=NO_OPS), monkeypatch)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert 'FAULT  mmcv 2.1.0 was built without its operators; fix: MMCV_WITH_OPS=1 pip install' in out
    assert 'Everything' not in out


def test_status_is_zero_where_all_works(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer(Fake(stack='wheels'), monkeypatch)
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert 'Nearest stack of docs/stacks.md: wheels (torch 2.1.2, Python 3.10).' in out
    assert 'stack wheels' in out
    assert 'Everything that distillation needs works.' in out
    assert 'FAULT' not in out


def test_status_is_zero_where_a_version_was_not_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(Fake({'torch': '2.14.0'}), monkeypatch)
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert 'not tested' in out
    assert 'note   Other than in the nearest stack, and no fault by that alone: torch 2.14.0 (2.13.0).' in out


@pytest.mark.parametrize('plain', [False, True], ids=['rich', 'plain'])
def test_table_names_what_is_installed(
    plain: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if plain:
        monkeypatch.setitem(sys.modules, 'rich.table', None)
    answer(Fake({'onedl-mmdetection': ''}, stack='forks'), monkeypatch)
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.replace('│', ' ').splitlines()
    words = [line.split() for line in lines]
    assert ['onedl-mmsegmentation', '1.4.2', '1.4.2', 'ok'] in words
    assert ['onedl-mmdetection', '-', '3.5.1', 'missing'] in words
    assert ['joblib', '1.0', 'any', 'ok'] in words


@pytest.mark.parametrize('stack', STACKS)
def test_json_is_one_object(stack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer(Fake(stack=stack), monkeypatch)
    assert doctor.main(['--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ['python', 'stack', 'packages', 'faults', 'notes']
    assert report['python'] == f'{STACKS[stack].python}.7'
    assert report['stack'] == stack
    name = STACKS[stack].distribution('mmseg')
    version = STACKS[stack].version(name)
    assert report['packages']['mmseg'] == dict(distribution=name, version=version, tested=version, verdict='ok')
    assert report['packages']['torch']['distribution'] == 'torch'
    assert report['faults'] == []
    assert report['notes'] == []


def test_json_has_the_status_faults_and_notes_of_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Fake({'onedl-mmdetection': '', 'mmsegmentation': '1.2.2'}, NO_OPS, stack='forks')
    answer(machine, monkeypatch)
    assert doctor.main(['--json']) == 1
    printed, report = json.loads(capsys.readouterr().out), examine(machine)
    assert [fault['problem'] for fault in printed['faults']] == [fault.problem for fault in report.faults]
    assert [fault['fix'] for fault in printed['faults']] == [fault.fix for fault in report.faults]
    assert len(printed['faults']) == 2
    assert printed['notes'] == report.notes
    assert printed['packages']['mmdet'] == dict(
        distribution='onedl-mmdetection', version='', tested='3.5.1', verdict='missing'
    )
    assert printed['packages']['mmseg'] == dict(
        distribution='mmsegmentation + onedl-mmsegmentation',
        version='1.2.2 + 1.4.2',
        tested='1.4.2',
        verdict='not tested',
    )


@pytest.mark.parametrize('tool', ['-m mmkd_plugin doctor', 'tools/doctor.py'])
def test_command_runs_without_any_package(tool: str) -> None:
    command = [sys.executable, '-S', *tool.split()]
    plain, machine = (
        subprocess.run([*command, *option], capture_output=True, text=True, cwd=ROOT) for option in ([], ['--json'])
    )
    assert (plain.returncode, machine.returncode) == (1, 1)
    assert (plain.stderr, machine.stderr) == ('', '')
    assert 'FAULT  torch is not installed; fix: pip install torch==' in plain.stdout
    report = json.loads(machine.stdout)
    assert report['packages']['torch']['verdict'] == 'missing'
    assert report['faults'][0]['problem'] == 'torch is not installed'


def test_json_of_this_machine_is_all_that_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'mmkd_plugin', 'doctor', '--json'], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode in (0, 1)
    assert json.loads(done.stdout)['packages']['torch']['verdict'] in ('ok', 'not tested')
    assert done.stderr == ''
