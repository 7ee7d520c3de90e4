"""The game of the student with its discriminator, against the authors' numbers."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.loss_tester import Golden, LossTester, cast, gradient, total
from torch import Tensor, nn

from mmkd_plugin.functional import gradient_penalty
from mmkd_plugin.methods import HolisticLoss
from mmkd_plugin.registry import MODELS

PRECISIONS = pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=['f64', 'f32']
)


def our_name(theirs: str) -> str:
    """Name of a parameter or buffer of the discriminator, by that of the authors."""
    module, _, rest = theirs.partition('.')
    if module == 'preprocess_additional':
        return f'norm.{rest}'
    if module == 'last':
        return f'last.{rest[2:]}'
    if module.startswith('attn'):
        return f'stages.{int(module[4:]) + 1}.2.{rest.replace("_conv", "")}'
    kind = {'weight_bar': 'weight', 'bias': 'bias', 'weight_u': 'u', 'weight_v': 'v'}[rest.rpartition('.')[2]]
    return f'stages.{int(module[1:]) - 1}.0.{kind}'


def renamed(data: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """The arrays of one group under our names."""
    return {our_name(key[len(group) + 1 :]): item for key, item in data.items() if key.startswith(f'{group}.')}


def authors_loss(**options) -> tuple[HolisticLoss, dict[str, Tensor]]:
    """The small logits-only discriminator in its recorded state, with the arrays of the file."""
    data = read_golden('holistic_discriminator_small')
    loss = HolisticLoss(3, conditional=False, widths=(8, 16, 32, 64), **options).double()
    loss.discriminator.load_state_dict(renamed(data, 'param'))
    return loss, data


class HolisticTester(LossTester):
    """What both kinds of discriminator share."""

    teacher = ()
    # Both sides of the game are tested below.
    test_calling_gives_the_sum_of_the_terms = None  # type: ignore[assignment]
    test_weight_zero_gives_a_zero_scalar = None  # type: ignore[assignment]
    term_weights = {'holistic': 'loss_weight'}
    conditional: bool

    def build(self, **options):
        torch.manual_seed(0)
        return HolisticLoss(5, conditional=self.conditional, widths=(8, 16), **options)

    def inputs(self):
        generator = torch.Generator().manual_seed(1)
        return {
            'student': torch.randn(3, 5, 16, 20, generator=generator),
            'image': torch.randn(3, 3, 40, 50, generator=generator),
        }

    @pytest.mark.parametrize('weight', [0.1, 0])
    def test_calling_gives_the_sum_of_both_sides(self, weight):
        inputs, teacher = self.inputs(), torch.randn(3, 5, 16, 20)
        loss, other = self._loss(loss_weight=weight), self._loss(loss_weight=weight)
        torch.manual_seed(1)
        value = loss(inputs['student'], teacher, inputs['image'])
        torch.manual_seed(1)
        terms = {**other.terms(**inputs), **other.discriminator_terms(inputs['student'], teacher, inputs['image'])}
        assert set(terms) == {'adversarial', 'penalty'} | ({'holistic'} if weight else set())
        assert value.shape == ()
        assert_near(value, sum(term.item() for term in terms.values()), 1e-6)

    def test_students_term_leaves_the_discriminator_alone(self):
        loss, inputs = self._loss(), self.inputs()
        inputs['student'].requires_grad_()
        loss.terms(**inputs)['holistic'].backward()
        assert all(parameter.grad is None for parameter in loss.parameters())

    def test_discriminators_terms_leave_the_models_alone(self):
        loss, inputs = self._loss(), self.inputs()
        student, teacher = inputs['student'].requires_grad_(), torch.randn(3, 5, 16, 20, requires_grad=True)
        total(loss.discriminator_terms(student, teacher, inputs['image'])).backward()
        assert student.grad is None and teacher.grad is None
        assert all(parameter.grad is not None for parameter in loss.parameters())

    def test_training_tells_teacher_and_student_apart(self):
        loss, inputs = self.build(), self.inputs()
        teacher = inputs['student'].roll(1, 1) * 3
        optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            total(loss.discriminator_terms(inputs['student'], teacher, inputs['image'])).backward()
            optimizer.step()
        scores = [loss.discriminator(logits, inputs['image']).mean() for logits in (teacher, inputs['student'])]
        assert scores[0] > scores[1] + 0.1


class TestConditionalHolisticLoss(HolisticTester):
    conditional = True
    # Recorded numbers exist for the other kind; what this one judges is checked by hand below.
    test_equals_golden = None  # type: ignore[assignment]

    def test_image_matters(self):
        inputs = self.inputs()
        expected = self._loss().terms(**inputs)['holistic']
        inputs['image'] = -inputs['image']
        assert (self._loss().terms(**inputs)['holistic'] - expected).abs() > 1e-4

    def test_missing_image_is_refused(self):
        with pytest.raises(ValueError, match='needs the image'):
            self.build().terms(self.inputs()['student'])


class TestLogitsHolisticLoss(HolisticTester):
    conditional = False
    golden_names = ('A', 'E')

    def golden(self, name):
        data = read_golden('holistic_discriminator_small')
        if name == 'A':
            loss, _ = authors_loss(loss_weight=1)
            gradients = {'student': data['A.grad_S_adv_for_G']}
            return Golden(loss, {'student': data['logits_S']}, {'holistic': data['A.adv_for_G']}, gradients, 1e-6)
        loss, _ = authors_loss()
        gradients = {'student': data['E.grad_S_G_adv_term']}
        return Golden(loss, {'student': data['logits_S']}, {'holistic': data['E.G_adv_term']}, gradients, 1e-6)


class TestGoldenDiscriminator:
    @pytest.mark.parametrize('training', [True, False])
    def test_scores(self, training):
        loss, data = authors_loss()
        scores = loss.discriminator.train(training)(data['logits_S'])
        assert_near(scores, data['A.out_S' if training else 'B.out_S_eval'].flatten(), 1e-7)

    def test_buffers_after_one_pass(self):
        loss, data = authors_loss()
        loss.terms(data['logits_S'])
        buffers = dict(loss.discriminator.named_buffers())
        for name, expected in renamed(data, 'A.after').items():
            assert_near(buffers[name], expected, 1e-7, name=name)

    @PRECISIONS
    def test_gradient_penalty(self, dtype, tolerance):
        loss, data = authors_loss()
        loss, data = loss.to(dtype), cast(data, dtype)
        discriminator = loss.discriminator
        penalty = gradient_penalty(discriminator.score, data['logits_T'], data['logits_S'], data['alpha'])
        assert_near(10 * penalty, data['C.gp_loss_times_lambda'], tolerance)
        (10 * penalty).backward()
        self.assert_gradients(discriminator, renamed(data, 'C.grad_gp'), tolerance)

    @PRECISIONS
    def test_one_iteration(self, dtype, tolerance):
        loss, data = authors_loss()
        loss, data = loss.to(dtype), cast(data, dtype)
        loss.terms(data['logits_S'])
        terms = loss.discriminator_terms(data['logits_S'], data['logits_T'], mix=data['alpha'])
        assert_near(terms['adversarial'], 0.1 * data['E.adv_wgan'], tolerance)
        assert_near(terms['penalty'], 0.1 * data['E.gp_times_lambda'], tolerance)
        assert_near(total(terms), data['E.d_loss'], tolerance)
        total(terms).backward()
        self.assert_gradients(loss.discriminator, renamed(data, 'E.grad_dloss'), tolerance)
        buffers = dict(loss.discriminator.named_buffers())
        for name, expected in renamed(data, 'E.after').items():
            assert_near(buffers[name], expected, tolerance, name=name)

    def test_hinge(self):
        loss, data = authors_loss(adversary='hinge', discriminator_weight=1, penalty_weight=0)
        loss.terms(data['logits_S'])
        terms = loss.discriminator_terms(data['logits_S'], data['logits_T'])
        assert set(terms) == {'adversarial'}
        assert_near(terms['adversarial'], data['E.adv_hinge'], 1e-7)

    @staticmethod
    def assert_gradients(discriminator: nn.Module, expected: dict[str, Tensor], tolerance: float) -> None:
        """Compare the gradients of all parameters."""
        parameters = dict(discriminator.named_parameters())
        assert set(expected) == set(parameters)
        floor = 1e-3 * max(item.abs().max().item() for item in expected.values())
        for name, value in expected.items():
            assert_near(gradient(parameters[name]), value, tolerance, floor, name=name)


@pytest.mark.parametrize('conditional', [True, False])
def test_tiny_map_has_finite_gradients(conditional):
    loss = HolisticLoss(2, conditional, widths=(8, 8))
    ours, theirs, image = torch.randn(1, 2, 1, 1), torch.randn(1, 2, 1, 1), torch.randn(1, 3, 8, 8)
    total(loss.discriminator_terms(ours, theirs, image)).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())


def test_unknown_adversary_is_refused():
    with pytest.raises(ValueError, match="'lsgan'; it must be 'wgan' or 'hinge'"):
        HolisticLoss(3, adversary='lsgan')


def test_it_is_registered():
    assert MODELS.module_dict['HolisticLoss'] is HolisticLoss
