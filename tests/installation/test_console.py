"""A long command is one line, reports its progress, and leaves nothing behind when it is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow


def test_command_is_one_line_and_its_output_is_in_the_log(
    console: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.run('greeting', [sys.executable, '-c', 'print("hello")'], tmp_path / 'a.log')
    assert capsys.readouterr().out == '  greeting: done in 0 s.\n'
    assert 'hello' in (tmp_path / 'a.log').read_text()


def test_failed_command_shows_the_end_of_its_output(
    console: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = 'print("the reason"); raise SystemExit(1)'
    with pytest.raises(console.SetupError, match=r'greeting failed; the whole output is in .*a\.log'):
        console.run('greeting', [sys.executable, '-c', code], tmp_path / 'a.log')
    assert '| the reason' in capsys.readouterr().out


def test_long_command_reports_its_progress_without_a_terminal(
    console: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, 'HEARTBEAT_SECONDS', 1)
    command = [sys.executable, '-c', 'import time; time.sleep(1.5)']
    console.run('build', command, tmp_path / 'a.log', progress=lambda: '3 of 7 files compiled')
    assert capsys.readouterr().out.startswith('  build: 1 s, 3 of 7 files compiled\n')


def test_interruption_ends_what_the_command_started(
    console: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / 'pid'

    def interrupt() -> str:
        if pid.exists() and pid.read_text().strip():
            raise KeyboardInterrupt
        return ''

    with pytest.raises(KeyboardInterrupt):
        command = ['sh', '-c', f'sleep 60 & echo $! > {pid}; wait']
        console.run('build', command, tmp_path / 'a.log', progress=interrupt)
    assert _ended(int(pid.read_text()))


def _ended(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
        except OSError:
            return True
        if state == 'Z':
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False
