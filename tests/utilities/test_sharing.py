"""What several callers of a step derive from the same tensors is computed once, and never outlives the step."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.utilities import sharing
from mmkd_plugin.utilities.sharing import one_step, shared


@pytest.fixture
def calls():
    return []


@pytest.fixture
def double(calls):
    @shared
    def double(x, factor=2, *, others=()):
        calls.append(x)
        return factor * x

    return double


def test_the_same_arguments_are_computed_once(double, calls):
    x, other = torch.ones(2), torch.zeros(1)
    with one_step():
        first = double(x, 3, others=[other])
        assert double(x, 3, others=[other]) is first
    assert len(calls) == 1
    assert first.tolist() == [3, 3]


@pytest.mark.parametrize(
    'change',
    [
        lambda x: (x.clone(), {}),
        lambda x: (x.double(), {}),
        lambda x: (x.view(2, 1), {}),
        lambda x: (x, dict(factor=3)),
        lambda x: (x, dict(factor=2.0)),
        lambda x: (x.add_(1), {}),
        lambda x: (x, dict(others=[x])),
        lambda x: (x, dict(others=[x.clone()])),
    ],
    ids=[
        'equal values',
        'precision',
        'view',
        'setting',
        'type of a setting',
        'changed in place',
        'a list',
        'in a list',
    ],
)
def test_other_arguments_are_computed_again(double, calls, change):
    x = torch.ones(2)
    with one_step():
        double(x, factor=2)
        other, options = change(x)
        found = double(other, **{'factor': 2, **options})
    assert len(calls) == 2
    assert torch.equal(found, options.get('factor', 2) * other)


def test_nothing_is_kept_outside_of_a_step(double, calls):
    x = torch.ones(2)
    double(x)
    for _ in range(2):
        with one_step():
            double(x)
    double(x)
    assert len(calls) == 4


def test_a_step_within_a_step_is_one_of_its_own(double, calls):
    x = torch.ones(2)
    with one_step():
        first = double(x)
        with one_step():
            assert double(x) is not first
        assert double(x) is first
    assert len(calls) == 2


def test_it_is_forgotten_where_the_step_fails(double, calls):
    x = torch.ones(2)
    with pytest.raises(RuntimeError), one_step():
        double(x)
        raise RuntimeError
    double(x)
    assert len(calls) == 2


def test_tensors_without_a_version_are_computed_each_time(double, calls):
    with torch.inference_mode():
        x = torch.ones(2)
    with one_step():
        double(x), double(x)
        double(torch.ones(1), others=(x,)), double(torch.ones(1), others=(x,))
    assert len(calls) == 4


def test_tensors_live_as_long_as_their_results(double, calls):
    # A tensor in the place of one that is gone would be taken for it.
    with one_step():
        for number in range(50):
            assert double(torch.full((2,), float(number))).tolist() == [2 * number] * 2
    assert len(calls) == 50


def test_functions_of_other_names_do_not_meet():
    one, two = shared(torch.nn.functional.relu), shared(torch.nn.functional.silu)
    x = -torch.ones(1)
    with one_step():
        assert one(x) == 0 > two(x)


def test_a_compiler_sees_the_function_itself(double, calls, monkeypatch):
    monkeypatch.setattr(sharing, 'is_compiling', lambda: True)
    x = torch.ones(2)
    with one_step():
        double(x), double(x)
    assert len(calls) == 2
