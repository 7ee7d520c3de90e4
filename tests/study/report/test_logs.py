"""The logs of a run are joined over its starts, and each number stands at its iteration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _helpers.work_folders import CONFIG, start, training, validation

from mmkd_plugin.study.report.logs import read_logs


def test_starts_are_joined_by_iteration(tmp_path: Path) -> None:
    start(tmp_path, '20260101_000000', [training(step, loss=float(step)) for step in (10, 20, 30)])
    # Resumed from iteration 20: the steps behind it were taken again.
    start(tmp_path, '20260102_000000', [training(step, loss=step + 0.5) for step in (25, 35)])
    logged = read_logs(tmp_path)
    assert logged.scalars['loss'] == {10: 10.0, 20: 20.0, 25: 25.5, 35: 35.5}
    assert logged.starts == 2
    assert logged.iterations == 35


def test_start_without_a_step_changes_nothing(tmp_path: Path) -> None:
    start(tmp_path, '20260101_000000', [training(10, loss=1.0)], log=['first'])
    start(tmp_path, '20260102_000000', [validation(mIoU=0.5)], log=['a test'])
    logged = read_logs(tmp_path)
    assert logged.scalars['loss'] == {10: 1.0}
    assert not logged.metrics
    assert logged.starts == 1


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    lines: list[Any] = [
        training(10, loss=1.0),
        '{"loss": 2.0, "iter": 20, "st',
        '[' * 100000,
        '"a text"',
        '{"loss": 3.0}',
        '{"loss": [1], "acc": true, "lr": null, "huge": 1' + '0' * 400 + ', "nan": NaN, "iter": 30, "step": 30}',
    ]
    logged = read_logs(start(tmp_path, '20260101_000000', lines))
    assert logged.broken == 4
    assert logged.scalars['loss'] == {10: 1.0}
    assert not {'acc', 'huge'} & set(logged.scalars)
    assert list(logged.scalars['nan']) == [30]


def test_validations_of_a_run_by_iteration(tmp_path: Path) -> None:
    # Every 20 iterations, logged every 25: MMEngine gives them no iteration.
    lines = [
        validation(mIoU=0.20),
        training(25, loss=1.0),
        validation(mIoU=0.40),
        training(50, loss=1.0),
        validation(mIoU=0.60),
        training(75, loss=1.0),
        validation(mIoU=0.80),
        training(100, loss=1.0),
        validation(mIoU=1.00),
    ]
    logged = read_logs(start(tmp_path, '20260101_000000', lines))
    assert logged.metrics['mIoU'] == {step: step / 100 for step in (20, 40, 60, 80, 100)}
    assert logged.validation_seconds == [0.25] * 5


def test_several_validations_between_two_lines(tmp_path: Path) -> None:
    lines = [training(10, loss=1.0), validation(mIoU=0.2), validation(mIoU=0.4), training(50, loss=1.0)]
    logged = read_logs(start(tmp_path, '20260101_000000', lines))
    assert logged.metrics['mIoU'] == {20: 0.2, 40: 0.4}


def test_last_validation_comes_at_the_end(tmp_path: Path) -> None:
    config = {**CONFIG, 'train_cfg': dict(max_iters=50, val_interval=20)}
    lines = [training(50, loss=1.0), validation(mIoU=0.5)]
    assert read_logs(start(tmp_path, '20260101_000000', lines, config)).metrics['mIoU'] == {50: 0.5}


def test_iteration_is_taken_where_it_is_logged(tmp_path: Path) -> None:
    config = {**CONFIG, 'default_hooks': dict(logger=dict(log_metric_by_epoch=False))}
    lines = [training(10, loss=1.0), validation(13, mIoU=0.5)]
    assert read_logs(start(tmp_path, '20260101_000000', lines, config)).metrics['mIoU'] == {13: 0.5}


def test_epochs_are_counted_in_iterations(tmp_path: Path) -> None:
    config = dict(train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1))
    lines = []
    for epoch in (1, 2):
        lines += [training(60 * (epoch - 1) + 50, loss=1.0, epoch=epoch), validation(epoch, mIoU=epoch / 10)]
    whole = start(tmp_path / 'a', '20260101_000000', lines, config, ['Epoch(train)  [1][50/60]  lr: 1.0e-02'])
    assert read_logs(whole).metrics['mIoU'] == {60: 0.1, 120: 0.2}
    # Without the text nothing is known behind the last line of an epoch.
    bare = start(tmp_path / 'b', '20260101_000000', lines, config)
    assert read_logs(bare).metrics['mIoU'] == {50: 0.1, 110: 0.2}


def test_validation_that_was_made_again_is_the_later_one(tmp_path: Path) -> None:
    start(tmp_path, '20260101_000000', [training(30, loss=1.0), validation(mIoU=0.1), training(45, loss=1.0)])
    start(tmp_path, '20260102_000000', [training(40, loss=1.0), validation(mIoU=0.2)])
    assert read_logs(tmp_path).metrics['mIoU'] == {40: 0.2}


def test_what_coco_cannot_measure_is_no_number(tmp_path: Path) -> None:
    values: Any = {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_l': -1.0}
    logged = read_logs(start(tmp_path, '20260101_000000', [training(20, loss=1.0), validation(**values)]))
    assert logged.metrics == {'coco/bbox_mAP': {20: 0.1}}


def test_self_check_and_times_of_the_log(tmp_path: Path) -> None:
    table = 'Distillation at the first step, iteration 1\nteacher weights: all\n┏━━┓\n└──┘\n'
    log = ['begin', table, 'Iter(train) [10/100]', 'Distillation at iteration 101\nlevels', 'discriminators\nD', 'end']
    logged = read_logs(start(tmp_path, '20260101_000000', [training(10, loss=1.0)], log=log))
    assert [check.rstrip() for check in logged.checks] == [table.rstrip(), *log[3:5]]
    assert (logged.first, logged.last) == ('2026/01/02 03:04:00', '2026/01/02 03:04:05')
