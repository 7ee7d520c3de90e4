"""The core check counts what happened, a stack that cannot be made says why, and the page tells both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stacks import __main__ as sweep
from benchmarks.stacks import steps
from benchmarks.stacks.page import page
from benchmarks.stacks.steps import STEPS, Result, Row, Step, read_rows, run_step
from mmkd_plugin.compat.stacks import Stack, read_stacks

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable)
TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert False
@pytest.mark.skip
def test_left(): pass
"""


def pytest_step(file: Path) -> Step:
    """A step that runs one file of tests."""
    return Step('some tests', ('-m', 'pytest', '-q', '-c', '/dev/null', str(file)), tests=True)


def test_tests_are_counted_and_failures_named(tmp_path: Path) -> None:
    (tmp_path / 'test_some.py').write_text(TESTS)
    result = run_step(pytest_step(tmp_path / 'test_some.py'), PYTHON, tmp_path / 'logs')
    assert (result.passed, result.tests, result.failures, result.skipped) == (False, 1, 1, 1)
    assert result.said == 'test_some::test_bad'


def test_report_of_an_earlier_run_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / 'test_some.py').write_text('def test_good(): pass')
    step = pytest_step(tmp_path / 'test_some.py')
    assert run_step(step, PYTHON, tmp_path / 'logs').tests == 1
    (tmp_path / 'test_some.py').write_text('raise SystemExit("broken")')
    result = run_step(step, PYTHON, tmp_path / 'logs')
    assert not result.passed
    assert result.tests == 0


def test_other_step_says_its_last_line(tmp_path: Path) -> None:
    step = Step('a step', ('-c', 'print("first"); raise SystemExit("what was wrong")'))
    result = run_step(step, PYTHON, tmp_path)
    assert not result.passed
    assert result.said == 'what was wrong'
    assert run_step(Step('b', ('-c', '')), PYTHON, tmp_path).passed


def test_every_step_names_what_exists() -> None:
    for step in STEPS:
        for argument in step.arguments:
            if '/' in argument:
                assert (ROOT / argument).exists(), argument


@pytest.fixture()
def stack() -> Stack:
    """Some stack."""
    return read_stacks()['wheels']


def test_disk_that_is_too_small_is_a_reason(stack: Stack, tmp_path: Path) -> None:
    row = sweep.check(stack._replace(disk=1e6), tmp_path, tmp_path)
    assert not row.passed
    assert row.reason.startswith('it takes 1000000.0 GB')


def test_set_up_that_fails_is_a_reason(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'setup/bootstrap').mkdir(parents=True)
    (tmp_path / 'setup/bootstrap/__main__.py').write_text('print("step"); print("error: no compiler."); exit(1)')
    monkeypatch.setattr(sweep, 'ROOT', tmp_path)
    assert sweep.check(stack, tmp_path, tmp_path).reason == 'no compiler.'


def test_page_tells_what_ran_what_failed_and_what_did_not_run(tmp_path: Path) -> None:
    good = Row('wheels', {'torch': '2.1.2+cu121'}, '3.10.1', 5.0, [Result(step.name, True, 7) for step in STEPS])
    bad = Row('forks', python='3.11', results=[Result(step.name, True, 7) for step in STEPS])
    bad.results[2] = Result(STEPS[2].name, False, 5, 2, said='test_fgd::test_one')
    for row in (good, bad, Row('docs-2023', reason='there is no Python 3.8.')):
        row.write(tmp_path)
    rows = read_rows(tmp_path)
    assert rows['wheels'] == good
    text = page(read_stacks(), rows)
    lines = {line.split(' | ')[0].strip('| '): line for line in text.splitlines() if ' | ' in line}
    assert '2.1.2+cu121' in text
    assert '| passes |' in lines['wheels']
    assert '| fails |' in lines['forks'] and '5, 2 fail' in lines['forks']
    assert '| cannot be made |' in lines['docs-2023']
    assert '| not run |' in lines['newest']
    assert '* docs-2023 cannot be made here: there is no Python 3.8.' in text
    assert f'* forks, {STEPS[2].name}: test_fgd::test_one' in text


def test_row_without_all_steps_does_not_pass() -> None:
    assert not Row('wheels', results=[Result(STEPS[0].name, True)]).passed
    assert not Row('wheels').passed


def test_sweep_needs_the_standard_library_alone(tmp_path: Path) -> None:
    command = [sys.executable, '-S', '-m', 'benchmarks.stacks', '--only', 'wheel']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'no stack "wheel"; choose one of docs-2023' in done.stderr


def test_chosen_steps_alone_are_run_again(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / stack.name / 'bin/python'
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sweep, 'set_up', lambda stack, folder: '')
    monkeypatch.setattr(sweep, 'STEPS', (Step('the one', ('-c', '')), Step('the other', ('-c', 'exit(1)'))))
    Row(stack.name, results=[Result('the one', False, said='old'), Result('the other', True, 5)]).write(tmp_path / 'w')
    row = sweep.check(stack, tmp_path, tmp_path / 'w', ['one'])
    assert [(result.step, result.passed, result.tests) for result in row.results] == [
        ('the one', True, 0),
        ('the other', True, 5),
    ]


def test_environment_is_removed_when_its_row_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def make(stack: Stack, folder: Path) -> str:
        python = folder / stack.name / 'bin/python'
        python.parent.mkdir(parents=True, exist_ok=True)
        if not python.exists():
            python.symlink_to(sys.executable)
        return ''

    monkeypatch.setattr(sweep, 'set_up', make)
    monkeypatch.setattr(sweep, 'STEPS', (Step('nothing', ('-c', '')),))
    monkeypatch.setattr(steps, 'STEPS', (Step('nothing', ('-c', '')),))
    monkeypatch.setenv('STACKS', str(tmp_path / 'stacks'))
    options = ['--out', str(tmp_path / 'page.md'), '--work-dir', str(tmp_path / 'work')]
    for keep in (True, False):
        monkeypatch.setattr(sys, 'argv', ['stacks', '--only', 'middle', *options, *(['--keep'] if keep else [])])
        assert sweep.main() == 0
        assert (tmp_path / 'stacks/middle').exists() is keep
    assert '| middle | passes |' in (tmp_path / 'page.md').read_text()
