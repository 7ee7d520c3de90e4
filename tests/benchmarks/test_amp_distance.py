"""Every method trains in mixed precision, and ends where float32 does."""

from __future__ import annotations

import math

import pytest

from benchmarks.amp_distance import ALLOWED, CASES, LAST, STEPS, Curve, cells, curve_of, distance
from mmkd_plugin.methods.lookup import known_methods


def test_every_method_has_a_case():
    assert {case.method['type'] for case in CASES.values()} == set(known_methods())


@pytest.mark.parametrize('name', CASES)
def test_first_steps(name, tmp_path):
    """Few enough for each run of the tests; the terms of both runs belong to nearly the same weights."""
    plain, amp = (curve_of(CASES[name], mixed, tmp_path / str(mixed), steps=3) for mixed in (False, True))
    assert plain.finite and amp.finite
    assert len(amp.terms) == 3 and all(plain.terms)
    assert amp != plain
    assert distance(amp.terms, plain.terms, last=3) < ALLOWED
    assert distance(amp.task, plain.task, last=3) < ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_after_fifty_steps(name, tmp_path):
    plain, amp = (curve_of(CASES[name], mixed, tmp_path / str(mixed)) for mixed in (False, True))
    assert plain.finite and amp.finite and len(amp.terms) == STEPS
    assert distance(amp.terms, plain.terms) < ALLOWED


def test_the_last_steps_count():
    reference = [0.0] * 40 + [2.0] * LAST
    assert distance([9.0] * 40 + [2.0] * 5 + [3.0] * 5, reference) == pytest.approx(0.25)
    assert distance([1.0], [0.0]) == math.inf


def test_what_is_not_finite_shows():
    assert Curve((1.0,), (2.0,)).finite
    assert not Curve((1.0, float('nan')), (2.0, 2.0)).finite
    assert not Curve((1.0,), (float('inf'),)).finite


def test_rows():
    plain, amp = Curve((1.0,) * 20, (4.0,) * 20), Curve((1.1,) * 20, (3.0,) * 20)
    row = ('FGD', 'retinanet', '1', '1.1', '10.00 %', '25.00 %')
    assert list(cells({'FGD': (plain, amp)})) == [row]
