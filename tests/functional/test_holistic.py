"""The Wasserstein game against arithmetic done by hand; the loss module's test holds it to the authors' numbers."""

from __future__ import annotations

import pytest
import torch
from _helpers.precision import assert_full_precision

from mmkd_plugin.functional import discriminator_loss, generator_loss, gradient_penalty


def squares(x):
    """D(x) = |x|^2 / 2 has the gradient x."""
    return (x**2).sum((1, 2, 3)) / 2


def test_losses_by_hand():
    teacher, student = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 1.0])
    assert generator_loss(student) == 1
    # -(0.5 + 2) / 2 + (-3 + 1) / 2
    assert discriminator_loss(teacher, student) == -2.25
    assert discriminator_loss(teacher, student, adversary='wgan') == -2.25
    # (0.5 + 0) / 2 + (0 + 2) / 2
    assert discriminator_loss(teacher, student, adversary='hinge') == 1.25


@pytest.mark.parametrize('function', [generator_loss, discriminator_loss])
def test_half_precision(function):
    scores = torch.randn(2, 5) * 30
    assert_full_precision(function, *scores[: 1 if function is generator_loss else 2])


def test_unknown_adversary_is_refused():
    with pytest.raises(ValueError) as error:
        discriminator_loss(torch.zeros(1), torch.zeros(1), adversary='lsgan')
    assert str(error.value) == "adversary must be one of 'wgan', 'hinge', but it is 'lsgan'."


class TestGradientPenalty:
    @pytest.mark.parametrize(('share', 'expected'), [(0.5, 16.0), (1.0, 25.0), (0.0, 49.0), (0.25, 26.8807)])
    def test_by_hand(self, share, expected):
        # Halfway between (6, 0) and (0, 8) it is (3, 4), of length 5: 16. The ends give (6 - 1)^2 and (8 - 1)^2. A
        # quarter of the way it is (1.5, 6), of length sqrt(38.25) = 6.18466: 26.8807.
        teacher, student = torch.tensor([6.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 8.0]).view(1, 2, 1, 1)
        penalty = gradient_penalty(squares, teacher, student, torch.full((1, 1, 1, 1), share))
        assert penalty.item() == pytest.approx(expected, rel=1e-5)

    def test_mean_over_images(self):
        # Gradients of length 1 and 3, over a map: (0 + 4) / 2.
        teacher = torch.zeros(2, 1, 3, 3)
        teacher[0, 0, 0, 0], teacher[1, 0, 1, 1] = 1, 3
        assert gradient_penalty(squares, teacher, teacher) == 2

    def test_random_mixtures_are_uniform_between_the_two(self):
        # On one axis, between the teacher at 2 and the student at 1, the mixtures are 1 + a.
        seen = []

        def score(x):
            seen.append(x)
            return x.sum((1, 2, 3))

        torch.manual_seed(0)
        teacher, student = torch.full((1000, 1, 2, 2), 2.0), torch.ones(1000, 1, 2, 2)
        gradient_penalty(score, teacher, student)
        (mixed,) = seen
        assert mixed.eq(mixed[:, :, :1, :1]).all(), 'one share per image'
        share = mixed[:, 0, 0, 0] - 1
        assert 0 <= share.min() < 0.02 and 0.98 < share.max() <= 1
        assert share.mean().item() == pytest.approx(0.5, abs=0.03)

    def test_mixtures_keep_the_precision(self):
        def score(x):
            assert x.dtype == torch.float64
            return x.sum((1, 2, 3))

        pair = torch.ones(2, 3, 1, 1, 1, dtype=torch.float64)
        assert gradient_penalty(score, pair[0], pair[1]).dtype == torch.float64

    def test_half_precision(self):
        pair, mix = torch.randn(2, 3, 1, 2, 2) * 300, torch.rand(3, 1, 1, 1)
        assert_full_precision(lambda *given: gradient_penalty(squares, *given), *pair, mix)

    def test_it_does_not_reach_the_models(self):
        pair = torch.ones(2, 1, 2, 2, 2, requires_grad=True)
        gradient_penalty(squares, pair[0], pair[1]).backward()
        assert pair.grad is None

    def test_it_trains_the_discriminator(self):
        # D(x) = w x has the gradient w: (w - 1)^2, whose derivative at 3 is 4.
        weight = torch.tensor(3.0, requires_grad=True)
        gradient_penalty(lambda x: weight * x[:, 0, 0, 0], torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)).backward()
        assert weight.grad == 4

    def test_it_works_where_gradients_are_off(self):
        with torch.no_grad():
            assert gradient_penalty(squares, torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 3.0)) == 4

    def test_flat_discriminator_has_a_finite_penalty(self):
        scale = torch.zeros(1, requires_grad=True)
        penalty = gradient_penalty(
            lambda x: (x * scale).sum((1, 2, 3)), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        )
        penalty.backward()
        assert penalty == 1
        assert torch.isfinite(scale.grad).all()
