"""Runs that are killed at random moments go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import START, WRITE, Trial, table
from mmkd_plugin.cli import wide_console

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ('trial', 'good'),
    [
        (Trial(WRITE, saved=3, resumed=3), True),
        (Trial(WRITE, saved=3, resumed=4), True),
        (Trial(WRITE, saved=3, resumed=2), False),
        (Trial(WRITE, saved=3, resumed=0), False),
        (Trial(WRITE, saved=3, resumed=3, words='RuntimeError'), False),
        (Trial(START, saved=0, resumed=0), True),
        (Trial(START, saved=0, resumed=-1), False),
    ],
)
def test_good_is_what_lost_nothing_that_was_saved(trial, good):
    assert trial.good is good


def test_table_counts_by_moment():
    console = wide_console()
    with console.capture() as shown:
        console.print(table([Trial(WRITE, 3, 3), Trial(WRITE, 3, 4), Trial(WRITE, 3, 1), Trial(START, 0, 0)]))
    rows = {row[0]: row[1:] for row in (line.split('│')[1:-1] for line in shown.get().splitlines()) if row}
    rows = {name.strip(): [int(cell) for cell in cells] for name, cells in rows.items()}
    assert rows == {'starting': [1, 1, 1], 'between steps': [0, 0, 0], 'writing a checkpoint': [3, 2, 1]}


@pytest.mark.slow
def test_a_distilled_run_is_killed_five_times():
    command = [sys.executable, '-m', 'benchmarks.kill_and_resume', '--times', '5', '--seed', '1']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert '5 of 5 runs went on without loss.' in result.stdout
