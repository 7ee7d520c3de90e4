"""What a study shows while it runs."""

from mmkd_plugin.study.runs import progress_bar, quiet


def test_progress_is_shown_while_a_run_writes_to_its_log(tmp_path, capsys):
    with progress_bar() as progress, quiet(tmp_path / 'console.log'):
        print('said by the run')
        progress.console.print('student alone: iteration 30 of 800')
    shown = capsys.readouterr().out
    assert 'iteration 30 of 800' in shown
    assert 'said by the run' not in shown
    assert (tmp_path / 'console.log').read_text() == 'said by the run\n'
