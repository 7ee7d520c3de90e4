"""The checks that every loss passes: a new loss inherits them by naming its inputs and its golden files.

A test class derives from :class:`LossTester`, says how to build the loss and a batch of random inputs, and turns
golden files into :class:`Golden` cases. Parity, half precision, gradients, order and size of the batch, switching
terms off, the sum of the terms and host synchronisation are then checked without further code.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from _helpers.golden import assert_near
from mmkd_plugin.methods import DistillLoss
from mmkd_plugin.utilities.host_syncs import HostSyncs


@dataclasses.dataclass
class Golden:
    """A recorded case.

    Attributes:
        loss: In float64, with the recorded parameters.
        inputs: Arguments of ``terms``, floating-point ones in float64.
        terms: Expected value of each term.
        gradients: Expected gradient of the sum of all terms, by the name of an input (``'student'``, ``'student.0'`` in
            a list) or of a parameter.
        tolerance: Relative, in float64.
    """

    loss: DistillLoss
    inputs: dict[str, Any]
    terms: dict[str, Any]
    gradients: dict[str, Any]
    tolerance: float = 1e-9


def map_tensors(function: Callable[[Tensor], Tensor], item: Any) -> Any:
    """Apply a function to a tensor, or to all tensors of a nested list or mapping."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, dict):
        return {key: map_tensors(function, each) for key, each in item.items()}
    if isinstance(item, (list, tuple)):
        return type(item)(map_tensors(function, each) for each in item)
    return item


def cast(item: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in another precision."""
    return map_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x, item)


def named_tensors(item: Any, name: str) -> dict[str, Tensor]:
    """All tensors of a nested list, named ``name.0``, ``name.1.0`` and so on."""
    if isinstance(item, Tensor):
        return {name: item}
    if isinstance(item, (list, tuple)):
        return {key: x for i, each in enumerate(item) for key, x in named_tensors(each, f'{name}.{i}').items()}
    return {}


def total(terms: dict[str, Tensor]) -> Tensor:
    """Sum of the terms."""
    return torch.stack(list(terms.values())).sum()


def gradient(leaf: Tensor) -> Tensor:
    """The gradient that was collected; 0 where none arrived."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


class LossTester:
    """Base of the losses' test classes.

    Attributes:
        golden_names: Names that :meth:`golden` understands.
        student: Inputs that gradients must reach.
        teacher: Inputs that gradients must not reach.
        shared: Inputs without a batch dimension.
        term_weights: Which argument of the constructor weighs each term.
        repeat_invariant: Whether a batch that holds every image twice gives the same loss.
    """

    golden_names: tuple[str, ...] = ()
    student: tuple[str, ...] = ('student',)
    teacher: tuple[str, ...] = ('teacher',)
    shared: tuple[str, ...] = ()
    term_weights: dict[str, str] = {}
    repeat_invariant = True

    def build(self, **options: Any) -> DistillLoss:
        """The loss, with arguments of its constructor replaced by ``options``."""
        raise NotImplementedError

    def inputs(self) -> dict[str, Any]:
        """Random float32 arguments of ``terms`` for at least three different images, the same in every call."""
        raise NotImplementedError

    def golden(self, name: str) -> Golden:
        """The recorded case of that name."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the parity check on every golden case, and the switch check on every term."""
        if 'golden_name' in metafunc.fixturenames:
            metafunc.parametrize('golden_name', self.golden_names)
        if 'term' in metafunc.fixturenames:
            metafunc.parametrize('term', self.term_weights)

    @pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, None), (torch.float32, 1e-4)], ids=['f64', 'f32'])
    def test_equals_golden(self, golden_name: str, dtype: torch.dtype, tolerance: float | None) -> None:
        case = self.golden(golden_name)
        tolerance = tolerance or case.tolerance
        loss, inputs = case.loss.to(dtype), cast(case.inputs, dtype)
        leaves = self._require_gradients(inputs, self.student)
        terms = loss.terms(**inputs)
        assert set(terms) == set(case.terms)
        for name, expected in case.terms.items():
            assert_near(terms[name], expected, tolerance, name=name)
        total(terms).backward()
        found = {**leaves, **dict(loss.named_parameters())}
        # A gradient that is 0 but for rounding is compared at the scale of the others.
        floor = 1e-3 * max((torch.as_tensor(item).abs().max().item() for item in case.gradients.values()), default=0.0)
        for name, expected in case.gradients.items():
            assert_near(gradient(found[name]), expected, tolerance, floor, name=f'gradient of {name}')

    def test_terms_are_scalars(self) -> None:
        terms = self._loss().terms(**self.inputs())
        assert terms
        assert all(term.shape == () and term.dtype == torch.float32 for term in terms.values())

    def test_term_of_weight_zero_is_left_out(self, term: str) -> None:
        everything = self._loss().terms(**self.inputs())
        rest = self._loss(**{self.term_weights[term]: 0}).terms(**self.inputs())
        assert set(rest) == set(everything) - {term}

    def test_terms_scale_with_their_weight(self, term: str) -> None:
        option = self.term_weights[term]
        once, thrice = (self._loss(**{option: weight}).terms(**self.inputs()) for weight in (0.5, 1.5))
        assert_near(thrice[term], 3 * once[term], 1e-5)

    def test_calling_gives_the_sum_of_the_terms(self) -> None:
        loss, inputs = self._loss(), self.inputs()
        leaves = self._require_gradients(inputs, self.student)
        expected = sum(term.item() for term in loss.terms(**inputs).values())
        value = loss(**inputs)
        assert value.shape == () and value.dtype == torch.float32
        assert_near(value, expected, 1e-6)
        value.backward()
        assert any(gradient(leaf).any() for leaf in leaves.values())

    def test_weight_zero_gives_a_zero_scalar(self) -> None:
        loss, inputs = self._loss(loss_weight=0), self._cast_features(self.inputs(), torch.float16)
        value = loss(**inputs)
        assert value.shape == () and value.dtype == torch.float32
        assert value == 0

    def test_loss_weight_scales_all_terms(self) -> None:
        once, thrice = (self._loss(loss_weight=weight).terms(**self.inputs()) for weight in (0.5, 1.5))
        assert_near(total(thrice), 3 * total(once), 1e-5)
        assert self._loss(loss_weight=0).terms(**self.inputs()) == {}

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype: torch.dtype) -> None:
        half = self._cast_features(self.inputs(), dtype)
        expected = self._loss().terms(**self._cast_features(half, torch.float32))
        leaves = self._require_gradients(half, self.student)
        terms = self._loss().terms(**half)
        for name, term in terms.items():
            assert_near(term, expected[name], 1e-6, name=name)
        total(terms).backward()
        assert all(torch.isfinite(gradient(leaf)).all() for leaf in leaves.values())

    @pytest.mark.parametrize('magnitude', [1e3, 0.0])
    def test_finite_for_large_and_for_zero_float16(self, magnitude: float) -> None:
        inputs = self._cast_features(self.inputs(), torch.float16)
        for name in (*self.student, *self.teacher):
            inputs[name] = map_tensors(lambda x: x / x.abs().max() * magnitude, inputs[name])
        leaves = self._require_gradients(inputs, self.student)
        terms = self._loss().terms(**inputs)
        total(terms).backward()
        assert all(torch.isfinite(term) for term in terms.values())
        assert all(torch.isfinite(gradient(leaf)).all() for leaf in leaves.values())

    def test_autocast_changes_nothing(self) -> None:
        expected = self._loss().terms(**self.inputs())
        with torch.autocast('cpu', torch.bfloat16):
            terms = self._loss().terms(**self.inputs())
        for name, term in terms.items():
            assert_near(term, expected[name], 1e-6, name=name)

    def test_each_term_reaches_the_student_and_never_the_teacher(self) -> None:
        inputs = self.inputs()
        students = self._require_gradients(inputs, self.student)
        teachers = self._require_gradients(inputs, self.teacher)
        for name, term in self._loss().terms(**inputs).items():
            term.backward(retain_graph=True)
            reached = [bool(gradient(leaf).any()) for leaf in students.values()]
            assert any(reached), f'{name} does not reach the student'
            assert all(leaf.grad is None for leaf in teachers.values()), f'{name} reaches the teacher'
            for leaf in students.values():
                leaf.grad = None

    def test_order_of_the_batch_does_not_matter(self) -> None:
        expected = self._loss().terms(**self.inputs())
        terms = self._loss().terms(**self._map_batch(lambda x: x.flip(0)))
        for name, term in terms.items():
            assert_near(term, expected[name], 1e-5, name=name)

    def test_size_of_the_batch_does_not_matter(self) -> None:
        if not self.repeat_invariant:
            pytest.skip('the loss grows with the batch by definition')
        expected = self._loss().terms(**self.inputs())
        terms = self._loss().terms(**self._map_batch(lambda x: torch.cat([x, x])))
        for name, term in terms.items():
            assert_near(term, expected[name], 1e-5, name=name)

    def test_inputs_are_left_alone(self) -> None:
        inputs = self.inputs()
        before = copy.deepcopy(inputs)
        total(self._loss().terms(**inputs))
        for name, item in inputs.items():
            for key, tensor in named_tensors(item, name).items():
                assert torch.equal(tensor, named_tensors(before[name], name)[key]), f'{key} was changed in place'

    def test_host_never_waits(self) -> None:
        loss, inputs = self._loss(), self.inputs()
        self._require_gradients(inputs, self.student)
        with HostSyncs() as syncs:
            total(loss.terms(**inputs)).backward()
        assert syncs.calls == []

    def _loss(self, **options: Any) -> DistillLoss:
        """The loss with random parameters, so that none hides behind an initialisation of 0."""
        loss = self.build(**options)
        generator = torch.Generator().manual_seed(0)
        for parameter in loss.parameters():
            parameter.data.normal_(std=0.3, generator=generator)
        return loss

    def _map_batch(self, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Inputs with a function applied along the batch."""
        return {
            name: item if name in self.shared else map_tensors(function, item) for name, item in self.inputs().items()
        }

    def _cast_features(self, inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
        """Inputs with the features of both models in another precision."""
        features = (*self.student, *self.teacher)
        return {name: cast(item, dtype) if name in features else item for name, item in inputs.items()}

    @staticmethod
    def _require_gradients(inputs: dict[str, Any], names: tuple[str, ...]) -> dict[str, Tensor]:
        """Let gradients be collected at some inputs, and name these."""
        leaves = {key: leaf for name in names for key, leaf in named_tensors(inputs.get(name), name).items()}
        for leaf in leaves.values():
            leaf.requires_grad_()
        return leaves
