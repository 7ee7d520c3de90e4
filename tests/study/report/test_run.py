"""Folders of runs, of rows and of comparisons are found, named and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _helpers.work_folders import start, training, validation

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.report.run import find_runs, gain, metric_names

TIME = '20260101_000000'


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """What a comparison of two rows with two seeds leaves."""
    for row in ('student_alone', 'fgd_+_chen'):
        for seed in (0, 1):
            start(tmp_path / row / f'seed{seed}', TIME, [training(10, loss=1.0)])
    start(tmp_path / 'teacher', TIME, [validation(mIoU=0.5)])
    rows = [
        dict(model=name, seed=0, time_per_image=time) for name, time in (('student alone', 1.0), ('fgd + chen', 1.5))
    ]
    (tmp_path / 'results.json').write_text(json.dumps(rows))
    return tmp_path


def test_whole_comparison(comparison: Path) -> None:
    runs = find_runs([comparison])
    assert [run.name for run in runs] == [
        'fgd_+_chen/seed0',
        'fgd_+_chen/seed1',
        'student_alone/seed0',
        'student_alone/seed1',
    ]
    assert [run.compared['time_per_image'] for run in runs] == [1.5, 1.5, 1.0, 1.0]


def test_row_and_seed(comparison: Path) -> None:
    runs = find_runs([comparison / 'student_alone', comparison / 'fgd_+_chen/seed1', comparison / 'fgd_+_chen/seed1'])
    assert [run.name for run in runs] == ['student_alone/seed0', 'student_alone/seed1', 'fgd_+_chen/seed1']
    assert runs[2].compared['model'] == 'fgd + chen'


def test_results_of_somebody_else_are_no_fault(comparison: Path) -> None:
    for text in ('', '{}', '[1, "a"]', '[' * 100000, '[{"model": 1}]'):
        (comparison / 'results.json').write_text(text)
        assert find_runs([comparison])[0].compared == {}


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    folders = [start(tmp_path / name, TIME, [training(10, loss=1.0)]) for name in ('a/run', 'b/run', 'other')]
    assert [run.name for run in find_runs(folders)] == ['a/run', 'b/run', f'{tmp_path.name}/other']
    assert [run.name for run in find_runs(folders[1:])] == ['run', 'other']


def test_run_is_distilled_by_its_block_or_by_its_terms(tmp_path: Path) -> None:
    line = [training(10, loss=1.0)]
    on: Any = dict(distill=dict(methods=dict(fgd={})))
    configs: Any = dict(block=on, off=dict(distill=dict(methods={})), none={})
    folders = [start(tmp_path / name, TIME, line, config) for name, config in configs.items()]
    folders.append(start(tmp_path / 'terms', TIME, [training(10, **{'distill.loss_x': 1.0})], {}))
    assert [run.distilled for run in find_runs(folders)] == [True, False, False, True]


def test_gain_is_that_at_the_last_common_validation(tmp_path: Path) -> None:
    def run(name: str, *values: float) -> Path:
        lines = [line for k, value in enumerate(values) for line in (training(20 * (k + 1)), validation(mIoU=value))]
        return start(tmp_path / name, TIME, lines)

    long, one, two = find_runs([run('long', 0.1, 0.5, 0.9), run('one', 0.1, 0.2), run('two', 0.2, 0.4)])
    found = gain(long, [one, two], 'mIoU')
    assert found is not None
    assert found == (40, pytest.approx(0.5 - 0.3))
    assert gain(long, [], 'mIoU') is None
    assert gain(long, [one], 'mAP') is None


def test_main_metric_comes_first(tmp_path: Path) -> None:
    values: Any = {'coco/bbox_mAP_50': 0.2, 'a': 0.3, 'coco/bbox_mAP': 0.1}
    runs = find_runs([start(tmp_path / 'run', TIME, [training(10), validation(**values)])])
    assert metric_names(runs) == ['coco/bbox_mAP', 'coco/bbox_mAP_50', 'a']


def test_folders_without_a_training_are_told(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    start(tmp_path / 'tested', TIME, [validation(mIoU=0.5)])
    (tmp_path / 'empty').mkdir()
    cases = dict(gone='does not exist; give', file='is no folder; give', empty='holds no log', tested='holds no log')
    for name, sentence in cases.items():
        with pytest.raises(DistillError, match=sentence):
            find_runs([tmp_path / name])
