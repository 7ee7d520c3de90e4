"""Weights that find themselves: when they are measured, what a measurement does, and what is kept of it."""

from __future__ import annotations

import math

import pytest
import torch

from mmkd_plugin.distillers.balance import BOUND, LARGEST_STEP, SMOOTHING, Balance
from mmkd_plugin.distillers.schedule import Progress
from mmkd_plugin.utilities.host_syncs import HostSyncs


def balance(*shares: float, **options: float) -> Balance:
    """Methods a, b, ... with one loss each."""
    methods = {name: dict(share=share, losses=[f'loss_{name}'], weight=2.0) for name, share in zip('abcdef', shares)}
    return Balance(methods, **options)


def squares(task: float, own: float) -> torch.Tensor:
    return torch.tensor([task**2, own**2])


def factor(found: Balance, name: str = 'a') -> float:
    return found.factors()[f'loss_{name}'].item()


def measured_steps(found: Balance, steps: int, losses: tuple[str, ...] = ('loss_a',)) -> list[int]:
    return [step for step in range(steps) if found.due(losses)]


def test_it_is_measured_at_once_and_then_in_gaps_that_grow():
    assert measured_steps(balance(1), 430) == [0, 1, 3, 7, 15, 31, 63, 127, 227, 327, 427]


@pytest.mark.parametrize('methods', [1, 2, 3, 6])
@pytest.mark.parametrize('longer', [1, 2, 10, 100])
def test_passes_backward_are_so_few_that_they_take_two_percent_of_a_run(methods, longer):
    """A pass goes through part of the student backward, which is less than half a step with the teacher's forward."""
    steps = 400 * (1 + methods) * longer
    losses = tuple(f'loss_{name}' for name in 'abcdef'[:methods])
    passes = len(measured_steps(balance(*[1.0] * methods), steps, losses)) * (1 + methods)
    assert passes <= 0.04 * steps


def test_method_that_begins_later_is_measured_at_once():
    found = balance(1, 1)
    first = [found.due(['loss_a']) for _ in range(10)]
    assert first[0] == ['a'] and first[9] == []
    assert found.due(['loss_a', 'loss_b']) == ['a', 'b']
    assert found.due([]) == []


@pytest.mark.parametrize(
    ('iterations', 'options', 'last'),
    [
        (800, {}, 127),  # Held from step 200 on; the next would be 227.
        (2000, {}, 427),  # From 500 on.
        (2000, dict(settle=0.1), 127),
        (40, {}, 31),  # Not before 100 steps.
        (430, dict(settle=1), 427),
    ],
)
def test_it_is_held_after_a_part_of_the_run(iterations, options, last):
    found = balance(1, **options)
    steps = [step for step in range(iterations) if found.due(['loss_a'], Progress(step, 0, iterations, 1))]
    assert steps[-1] == last


def test_each_method_is_held_after_its_own_part():
    found = balance(1, 1)
    due = {}
    for step in range(1200):
        losses = ['loss_a', 'loss_b'] if step >= 600 else ['loss_a']
        due[step] = found.due(losses, Progress(step, 0, 1200, 1))
    assert not any(due[step] for step in range(300, 600))
    assert due[600] == due[727] == ['b']
    assert not any(due[step] for step in range(900, 1200))


def test_first_measurement_is_taken_as_it_is():
    found = balance(0.5)
    assert factor(found) == 1
    found.update({'a': squares(task=3, own=12)})
    assert factor(found) == pytest.approx(0.5 * 3 / 12)
    assert found.weights()['a'].item() == pytest.approx(2 * 0.5 * 3 / 12)


def test_further_measurements_are_smoothed_and_their_steps_bounded():
    found = balance(1)
    found.update({'a': squares(1, 1)})
    found.update({'a': squares(2, 1)})
    assert factor(found) == pytest.approx(2**SMOOTHING)
    before = math.log(factor(found))
    found.update({'a': squares(1e6, 1)})
    assert math.log(factor(found)) - before == pytest.approx(LARGEST_STEP)


def test_factor_has_bounds_that_are_told():
    found = balance(1, 1)
    found.update({'a': squares(1, 1e-9), 'b': squares(1e-9, 1)})
    assert math.log(factor(found, 'a')) == pytest.approx(BOUND)
    assert math.log(factor(found, 'b')) == pytest.approx(-BOUND)
    assert found.at_bound() == ['a', 'b']
    found.update({'a': squares(1, 1), 'b': squares(1, 1)})
    assert found.at_bound() == []


@pytest.mark.parametrize(
    'bad', [(1.0, math.nan), (math.inf, 1.0), (1.0, math.inf), (0.0, 1.0), (1.0, 0.0), (math.nan, math.nan)]
)
def test_what_is_not_finite_or_zero_is_passed_over(bad):
    found = balance(1, 1)
    found.update({'a': squares(*bad), 'b': squares(1, 4)})
    assert factor(found, 'a') == 1
    assert factor(found, 'b') == pytest.approx(0.25)
    found.update({'a': squares(1, 8)})
    assert factor(found, 'a') == pytest.approx(1 / 8)
    assert factor(found, 'b') == pytest.approx(0.25)
    found.update({'a': squares(*bad)})
    assert factor(found, 'a') == pytest.approx(1 / 8)


def test_state_goes_on_exactly():
    straight, parts = balance(1, 0.3), balance(1, 0.3)

    def step(found: Balance, index: int) -> list[str]:
        due = found.due(['loss_a', 'loss_b'] if index > 3 else ['loss_a'], Progress(index, 0, 440, 1))
        found.update({name: squares(1 + index % 3, 2 + index % 5) for name in due} if due else {})
        return due

    for index in range(40):
        step(straight, index)
        step(parts, index)
    resumed = balance(1, 0.3)
    resumed.load_state_dict(parts.state_dict())
    assert [step(resumed, index) for index in range(40, 200)] == [step(straight, index) for index in range(40, 200)]
    first, second = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_state_of_other_methods_is_refused():
    with pytest.raises(RuntimeError, match='size mismatch'):
        balance(1).load_state_dict(balance(1, 1).state_dict())


def test_paused_factors_stay():
    found = balance(1)
    found.paused = True
    assert measured_steps(found, 5) == []


def test_it_waits_for_no_device():
    found = balance(1, 1)
    with HostSyncs() as syncs:
        found.update({name: squares(1, 2) for name in found.due(['loss_a', 'loss_b'])})
        _ = found.factors(), found.weights()
    assert syncs.calls == []
