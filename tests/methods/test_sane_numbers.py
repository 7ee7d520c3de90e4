"""Whatever a batch holds, every term of every method is a number, and its gradient is not far from the usual."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from _helpers.sane_cases import CASES, chen_dense, fgd, fgi, pspnet_kd
from _helpers.situations import KINDS, STRIDES, VALUES, Case, Situation, measure, ordinary_gradient
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import mmkd_plugin.methods  # noqa: F401
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import METHODS

BOUND = 30
"""How many times the gradient of an ordinary batch that of any other may be long."""
SIZES = ((8, 8), (32, 256), (128, 128))
"""From a single cell on every level."""
LARGE = (256, 384)
"""At this size a batch without boxes is far from an ordinary one."""
NAMES = [(method, variant) for method in CASES for variant in CASES[method]]
METHODS_OF_OURS = [name for name, kind in METHODS.module_dict.items() if kind.__module__.startswith('mmkd_plugin.')]


def _half_on_this_cpu() -> bool:
    """Whether the heads of detectors, which are not ours, can be run in float16 without a GPU."""
    try:
        torch.zeros(1, dtype=torch.float16).sigmoid().clamp(min=0)
    except RuntimeError:
        return False
    return True


DTYPES = ('float32', *(('float16',) if _half_on_this_cpu() else ()), 'bfloat16', 'float64')


def situations(sizes: tuple[tuple[int, int], ...], classes: tuple[int, ...]) -> st.SearchStrategy[Situation]:
    """Batches of one to three images on one to four ranks; the first of the choices is the simplest."""
    return st.builds(
        Situation,
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).map(tuple),
        size=st.sampled_from(sizes),
        images=st.integers(1, 3),
        ranks=st.sampled_from((1, 2, 4)),
        classes=st.sampled_from(classes),
        dtype=st.sampled_from(DTYPES),
        values=st.sampled_from(('normal', *VALUES)),
        seed=st.integers(0, 99),
    )


def same_for_all(examples: int) -> Callable:
    """The same examples in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def _fewest_cells(situation: Situation) -> int:
    height, width = (-(-side // STRIDES[-1]) for side in situation.size)
    return height * width


@dataclasses.dataclass
class Exemption:
    """A batch for which a method is not defined, or not bounded, by the words of those whose formula it is.

    Attributes:
        applies: To which situations.
        reason: Why.
        worst: One of them, to see that the exemption is still needed.
        bound: Of the gradient; infinity where the terms need not be numbers.
    """

    applies: Callable[[Situation], bool]
    reason: str
    worst: Situation
    bound: float = math.inf


EXEMPT = {
    ('Feature', 'PKD'): Exemption(
        lambda situation: situation.images * _fewest_cells(situation) < 3 or situation.values in ('dead', 'zero'),
        "a correlation needs more than two numbers that are not all the same; MMRazor's divides by their deviation",
        Situation(size=(8, 8), images=1),
    ),
    ('Feature', 'L2'): Exemption(
        lambda situation: situation.values in ('dead', 'zero'),
        "MMRazor's divides the student's feature by its length",
        Situation(values='zero'),
    ),
    ('Holistic', 'logits alone'): Exemption(
        lambda situation: (
            situation.values in ('dead', 'zero', 'equal') or situation.images * _fewest_cells(situation) < 3
        ),
        'the released discriminator divides logits by their deviation, and by that of 1e-5 where they are all the same',
        Situation(images=1, values='zero'),
        bound=BOUND / math.sqrt(1e-5),
    ),
}


def test_every_method_is_asked():
    assert METHODS_OF_OURS
    assert set(CASES) == set(METHODS_OF_OURS), 'tests/_helpers/sane_cases.py says how the losses of a method are fed'
    assert all(CASES.values())
    assert set(EXEMPT) <= set(NAMES)


def assert_sane(case: Case, situation: Situation, bound: float = BOUND) -> None:
    terms, gradient = measure(case, situation)
    assert terms
    wrong = [name for name, term in terms.items() if term.shape != () or not torch.isfinite(term)]
    assert not wrong, f'not a finite scalar: {wrong}'
    assert math.isfinite(gradient)
    usual = ordinary_gradient(case, dataclasses.replace(situation, kinds=('few',), values='normal', seed=0))
    assert gradient <= bound * usual, f'the gradient is {gradient / (usual or math.nan):.0f} times the usual one'


def ask(method: str, variant: str, situation: Situation) -> None:
    """Check a method, as far as it is defined."""
    case, exemption = CASES[method][variant], EXEMPT.get((method, variant))
    if method == 'PairWise' and situation.size == SIZES[0]:
        # There is no pair in a single cell.
        with pytest.raises(DistillError, match='choose a'):
            measure(case, situation)
        return
    if exemption is None or not exemption.applies(situation):
        assert_sane(case, situation)
    elif math.isfinite(exemption.bound):
        assert_sane(case, situation, exemption.bound)


@pytest.mark.parametrize(('method', 'variant'), NAMES)
@same_for_all(10)
@given(situation=situations(SIZES, (2, 4, 20)))
@example(situation=Situation(kinds=('none',), size=LARGE))
@example(situation=Situation(kinds=('one', 'none'), size=LARGE))
@example(situation=Situation(kinds=('none', 'none', 'few', 'many'), ranks=2))
def test_every_term_is_sane(method, variant, situation):
    ask(method, variant, situation)


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'variant'), NAMES)
@same_for_all(40)
@given(situation=situations((*SIZES, LARGE), (2, 4, 20, 80)))
def test_every_term_is_sane_in_many_situations(method, variant, situation):
    ask(method, variant, situation)


@pytest.mark.parametrize('name', EXEMPT)
def test_an_exemption_is_needed(name):
    exemption = EXEMPT[name]
    assert exemption.applies(exemption.worst) and exemption.reason
    with pytest.raises(AssertionError):
        assert_sane(CASES[name[0]][name[1]], exemption.worst)


@pytest.mark.parametrize(
    ('case', 'situation'),
    [
        (functools.partial(chen_dense, min_positives=0), Situation(kinds=('none',), size=LARGE)),
        (functools.partial(pspnet_kd, ignore=True, min_valid=0), Situation(kinds=('one', 'none'), size=LARGE)),
    ],
)
def test_a_plain_normaliser_is_caught(case, situation):
    with pytest.raises(AssertionError, match='times the usual one'):
        assert_sane(case, situation)


@pytest.mark.parametrize('case', [fgd, fgi, functools.partial(fgi, region='boxes')])
def test_nothing_loops_over_boxes(case):
    """With two thousand boxes to an image there are not as many further operators."""
    counts = []
    for kind in ('few', 'many'):
        with Operators() as operators:
            measure(case, Situation(kinds=(kind,)))
        counts.append(operators.count)
    assert counts[0] and abs(counts[1] - counts[0]) < 500


class Operators(TorchDispatchMode):
    """Counts operators."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
