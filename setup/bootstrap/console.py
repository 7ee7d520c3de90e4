"""Commands that take long, shown as one line each: what runs, for how long, how far it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Callable, NoReturn

HEARTBEAT_SECONDS = 30


class SetupError(Exception):
    """Set-up cannot go on; the message is one sentence that names the fix."""


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def run(
    title: str,
    command: Sequence[str | Path],
    log: Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    progress: Callable[[], str] | None = None,
    keep_open: Sequence[int] = (),
    may_fail: bool = False,
) -> None:
    """Run a command with its output in a log file.

    On a terminal a running line shows the time and the progress, elsewhere a line appears every half a minute.

    Args:
        title: What the command does.
        command: Program and arguments.
        log: File that gets all output; it is appended to.
        cwd: Working folder.
        env: Changes to the environment.
        progress: Gives how far the command is; by default the last line of its output.
        keep_open: File descriptors that the command inherits.
        may_fail: Whether the caller sees by itself what came of it.

    Raises:
        SetupError: If the command fails; the end of its output is shown.
    """
    start = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('ab') as output:
        output.write(f'\n$ {" ".join(map(str, command))}\n'.encode())
        output.flush()
        # A session of its own, so that an interruption ends the compilers that the command started, too.
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            pass_fds=keep_open,
        )
    try:
        _watch(process, title, start, progress or (lambda: _last_line(log)))
    except BaseException:
        _end(process)
        raise
    if process.returncode and not may_fail:
        for line in log.read_text(encoding='utf-8', errors='replace').splitlines()[-15:]:
            say(f'    | {line}')
        raise SetupError(f'{title} failed; the whole output is in {log}.')
    say(f'  {title}: done in {_duration(start)}.')


def stop_on_termination() -> None:
    """Let a polite request to end behave like Ctrl-C, so that no compiler is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _watch(process: subprocess.Popen, title: str, start: float, progress: Callable[[], str]) -> None:
    terminal = sys.stdout.isatty()
    shown = start
    while True:
        try:
            process.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            text = f'  {title}: {_duration(start)}'
            detail = progress()
            if detail:
                text += f', {detail}'
            if terminal:
                width = shutil.get_terminal_size().columns - 1
                print(f'\r{text[:width]:<{width}}', end='', flush=True)
            elif time.monotonic() - shown >= HEARTBEAT_SECONDS:
                shown = time.monotonic()
                say(text[:160])
    if terminal:
        print('\r' + ' ' * (shutil.get_terminal_size().columns - 1), end='\r', flush=True)


def _end(process: subprocess.Popen) -> None:
    """End the command and whatever it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=10)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _last_line(log: Path) -> str:
    with log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = file.read().decode('utf-8', 'replace').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def _duration(start: float) -> str:
    seconds = int(time.monotonic() - start)
    return f'{seconds // 60} min {seconds % 60:02d} s' if seconds >= 60 else f'{seconds} s'
