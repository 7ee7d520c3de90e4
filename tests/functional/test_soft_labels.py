"""Divergences of class probabilities against arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.golden import assert_near
from _helpers.precision import assert_full_precision
from torch import Tensor

from mmkd_plugin.functional import soft_label_divergence

LOG2, LOG3 = math.log(2), math.log(3)


def pixel(*logits: float) -> Tensor:
    """The logits of one pixel."""
    return torch.tensor(logits).view(1, -1, 1, 1)


def test_by_hand():
    # The teacher says 3/4 and 1/4, the student 1/2 and 1/2.
    entropy = 2 * LOG2 - 3 / 4 * LOG3
    loss = soft_label_divergence(pixel(0, 0), pixel(LOG3, 0), divergence='cross_entropy')
    assert_near(loss, torch.full((1, 1, 1), LOG2), 1e-6)
    for options in ({}, {'divergence': 'kl'}):
        loss = soft_label_divergence(pixel(0, 0), pixel(LOG3, 0), **options)
        assert_near(loss, torch.full((1, 1, 1), LOG2 - entropy), 1e-6)


@pytest.mark.parametrize('temperature', [2.0, 0.5])
def test_temperature_softens_both(temperature):
    # Odds of 3^T become 3. Teacher 3/4 and 1/4, student the other way round: (3/4 - 1/4) log 3.
    odds = temperature * LOG3
    loss = soft_label_divergence(pixel(0, odds), pixel(odds, 0), temperature=temperature)
    assert_near(loss, torch.full((1, 1, 1), LOG3 / 2), 1e-6)


def test_each_pixel_by_itself():
    # Classes are the second of four dimensions; the second image agrees with its teacher.
    student, teacher = torch.zeros(2, 2, 1, 3), torch.zeros(2, 2, 1, 3)
    teacher[0, 0, 0, 1] = LOG3
    expected = torch.zeros(2, 1, 3)
    expected[0, 0, 1] = 3 / 4 * LOG3 - LOG2
    assert_near(soft_label_divergence(student, teacher), expected, 1e-6)


def test_both_divergences_have_one_gradient_at_the_student_alone():
    pair = torch.randn(2, 2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for divergence in ('kl', 'cross_entropy'):
        leaves = pair.clone().requires_grad_()
        soft_label_divergence(leaves[0], leaves[1], divergence=divergence).sum().backward()
        assert leaves.grad[1].eq(0).all()
        gradients.append(leaves.grad[0])
    # Softmax of the student less that of the teacher.
    expected = pair[0].softmax(1) - pair[1].softmax(1)
    for gradient in gradients:
        assert_near(gradient, expected, 1e-5)


@pytest.mark.parametrize('divergence', ['kl', 'cross_entropy'])
@pytest.mark.parametrize('block', [1, 20, 2**18])
def test_gradients_are_those_of_the_formula(monkeypatch, block, divergence):
    monkeypatch.setattr('mmkd_plugin.functional.reductions.BLOCK', block)
    student, teacher = torch.randn(2, 2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student.requires_grad_()

    def loss(logits):
        return soft_label_divergence(logits, teacher, divergence=divergence, temperature=1.7)

    own, other = (student / 1.7).log_softmax(1), (teacher / 1.7).log_softmax(1)
    expected = (other.exp() * ((other if divergence == 'kl' else 0) - own)).sum(1)
    assert_near(loss(student), expected.detach(), 1e-12)
    assert torch.autograd.gradcheck(loss, student) and torch.autograd.gradgradcheck(loss, student)


def test_half_precision():
    assert_full_precision(soft_label_divergence, *torch.randn(2, 1, 3, 2, 2) * 30)


def test_different_logits_are_refused():
    with pytest.raises(ValueError) as error:
        soft_label_divergence(torch.zeros(1, 5, 3, 3), torch.zeros(1, 4, 3, 3))
    assert str(error.value) == (
        'Class scores are compared pixel by pixel, but the student gives (1, 5, 3, 3) and the teacher (1, 4, 3, 3); '
        'use models of the same classes and resize the logits to one size.'
    )


def test_unknown_divergence_is_refused():
    with pytest.raises(ValueError) as error:
        soft_label_divergence(pixel(0, 0), pixel(0, 0), divergence='mse')
    assert str(error.value) == "divergence must be one of 'cross_entropy', 'kl', but it is 'mse'."
