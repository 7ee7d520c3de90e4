"""How many steps are taken, and what their times come to."""

from __future__ import annotations

import functools

import pytest

from mmkd_plugin.study.turns import StepCost, SteppedRun, planned, take_turns


@pytest.mark.parametrize(
    ('wanted', 'expected'),
    [((5, 1, 100), (2, 5)), ((5, 4, 100), (5, 5)), ((5, 1, 4), (2, 2)), ((5, 1, 1), (0, 1)), ((1, 8, 3), (2, 1))],
)
def test_no_more_steps_than_the_run_has(wanted: tuple, expected: tuple) -> None:
    assert planned(*wanted) == expected


def test_seconds_are_the_median_of_the_timed_steps() -> None:
    run = object.__new__(SteppedRun)
    run.runner = type('Runner', (), dict(hooks=[]))
    run.seconds, run._held, run._peak = [9.0, 1.0, 2.0], 10, 30
    assert run.cost() == StepCost(seconds=2.0, held=10, peak=30)


def test_the_order_changes_from_round_to_round_and_each_takes_one_step_in_each() -> None:
    order: list[str] = []
    runs = []
    for name in 'abc':
        run = object.__new__(SteppedRun)
        run.timed_step = functools.partial(order.append, name)  # type: ignore[method-assign]
        runs.append(run)
    take_turns(runs, 4, lambda number: order.append(str(number)))
    assert ''.join(order) == '0a0b0c' + '1b1c1a' + '2c2a2b' + '3a3b3c'
