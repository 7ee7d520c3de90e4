"""What a study shows while it runs, and what becomes of the runs that it had done before."""

from __future__ import annotations

from _helpers.small_runs import files
from _helpers.tiny import run_config

from mmkd_plugin.study.runs import progress_bar, quiet, train_once


def test_progress_is_shown_while_a_run_writes_to_its_log(tmp_path, capsys):
    with progress_bar() as progress, quiet(tmp_path / 'console.log'):
        print('said by the run')
        progress.console.print('student alone: iteration 30 of 800')
    shown = capsys.readouterr().out
    assert 'iteration 30 of 800' in shown
    assert 'said by the run' not in shown
    assert (tmp_path / 'console.log').read_text() == 'said by the run\n'


def test_a_changed_run_takes_the_place_of_the_old_one(tmp_path):
    """Not even its checkpoints are left, so that nothing goes on from them."""
    outcomes = []
    with progress_bar() as progress:
        for iterations in (2, 1):
            config = run_config(tmp_path, iterations)
            outcomes.append(train_once('student', config, 0, tmp_path / 'run', progress))
    assert outcomes[0].checkpoint.endswith('iter_2.pth') and outcomes[1].checkpoint.endswith('iter_1.pth')
    assert files(tmp_path / 'run') == ['iter_1.pth']
