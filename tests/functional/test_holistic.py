"""The discriminator and its game with the student, against the authors' numbers and arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from _helpers.loss_tester import Golden, LossTester, assert_near, cast, gradient, read_golden, total
from torch import Tensor, nn

from mmkd_plugin.functional import discriminator_loss, generator_loss, gradient_penalty
from mmkd_plugin.methods import HolisticLoss
from mmkd_plugin.models.discriminator import Discriminator, SelfAttention, SpectralConv2d
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
    term_weights = {'holistic': 'holistic_weight'}
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

    def test_students_term_leaves_the_discriminator_alone(self):
        loss, inputs = self._loss(), self.inputs()
        inputs['student'].requires_grad_()
        loss(**inputs)['holistic'].backward()
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

    def test_it_judges_the_image_and_the_probabilities(self):
        # A 2 x 2 image on a 4 x 4 map with aligned corners rises evenly. Logits 0 and log 3: 1/4 and 3/4.
        image = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
        logits = torch.tensor([0.0, 1.0986123]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        joint = Discriminator(2, widths=(4,), image_channels=1).joint(logits, image)
        expected = [[0.0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
        assert_near(joint[0, 0], torch.tensor(expected), 1e-6)
        assert_near(joint[0, 1:], torch.tensor([0.25, 0.75]).view(2, 1, 1).expand(2, 4, 4), 1e-6)

    def test_image_matters(self):
        inputs = self.inputs()
        expected = self._loss()(**inputs)['holistic']
        inputs['image'] = -inputs['image']
        assert (self._loss()(**inputs)['holistic'] - expected).abs() > 1e-4

    def test_missing_image_is_refused(self):
        with pytest.raises(ValueError, match='needs the image'):
            self.build()(self.inputs()['student'])


class TestLogitsHolisticLoss(HolisticTester):
    conditional = False
    golden_names = ('A', 'E')

    def golden(self, name):
        data = read_golden('holistic_discriminator_small')
        if name == 'A':
            loss, _ = authors_loss(holistic_weight=1)
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
        loss(data['logits_S'])
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
        loss(data['logits_S'])
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
        loss(data['logits_S'])
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


class TestDiscriminator:
    def test_number_of_parameters_for_cityscapes(self):
        discriminator = Discriminator(19, conditional=False)
        trained = sum(parameter.numel() for parameter in discriminator.parameters())
        vectors = sum(item.numel() for name, item in discriminator.named_buffers() if name[-2:] in ('.u', '.v'))
        assert (trained, trained + vectors) == (3191721, 3200153)

    @pytest.mark.parametrize('size', [(64, 64), (65, 65), (64, 128), (97, 71), (130, 130)])
    def test_any_larger_map_gives_one_finite_score_an_image(self, size):
        scores = Discriminator(4, conditional=False, widths=(4, 4, 8, 8))(torch.randn(2, 4, *size))
        assert scores.shape == (2,)
        assert torch.isfinite(scores).all()

    def test_score_of_a_larger_map_is_the_mean_over_windows(self):
        # Without stages the last convolution sees the 4 x 5 cells themselves, in two windows of 4 x 4.
        discriminator = Discriminator(3, conditional=False, widths=(3,)).eval()
        discriminator.stages = nn.ModuleList()
        feature = torch.randn(1, 3, 4, 5)
        expected = (discriminator.score(feature[..., :4]) + discriminator.score(feature[..., 1:])) / 2
        assert_near(discriminator.score(feature), expected, 1e-5)

    @pytest.mark.parametrize('conditional', [True, False])
    @pytest.mark.parametrize('size', [(1, 1), (3, 40), (15, 16)])
    def test_smaller_map_is_enlarged(self, size, conditional):
        discriminator = Discriminator(2, conditional, widths=(8, 8))
        logits, image = torch.randn(1, 2, *size), torch.randn(1, 3, 8, 8)
        joint = discriminator.joint(logits, image)
        larger = nn.functional.interpolate(joint, (16, max(16, size[1])), mode='bilinear', align_corners=False)
        state = discriminator.state_dict()
        state = {key: value.clone() for key, value in state.items()}
        score = discriminator.score(joint)
        discriminator.load_state_dict(state)
        assert torch.equal(score, discriminator.score(larger))

    @pytest.mark.parametrize('conditional', [True, False])
    def test_tiny_map_has_finite_gradients(self, conditional):
        loss = HolisticLoss(2, conditional, widths=(8, 8))
        ours, theirs, image = torch.randn(1, 2, 1, 1), torch.randn(1, 2, 1, 1), torch.randn(1, 3, 8, 8)
        total(loss.discriminator_terms(ours, theirs, image)).backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())

    def test_other_classes_are_refused(self):
        with pytest.raises(ValueError, match='built for 3 classes, but the logits have 4'):
            Discriminator(3, widths=(8,))(torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8))

    @pytest.mark.parametrize('part', [Discriminator, HolisticLoss])
    def test_it_is_registered(self, part):
        assert MODELS.module_dict[part.__name__] is part

    def test_state_resumes_exactly(self):
        torch.manual_seed(3)
        logits = torch.randn(2, 4, 20, 20)
        first, second = (Discriminator(4, conditional=False, widths=(8, 8)) for _ in range(2))
        first(logits)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(logits), second(logits))


class TestParts:
    def test_spectral_norm_converges_to_the_largest_singular_value(self):
        conv = SpectralConv2d(2, 3, 1, stride=1, padding=0)
        with torch.no_grad():
            conv.bias.zero_()
            # Singular values 5 and 2.
            conv.weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]]).view(3, 2, 1, 1))
            for _ in range(50):
                output = conv(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        assert_near(output.flatten(), torch.tensor([0.6, 0.8, 0.0]), 1e-6)

    def test_spectral_norm_has_no_gradient_along_the_weight(self):
        # The normalised weight does not change with the length of the weight.
        conv = SpectralConv2d(2, 3, 3, 1, 1)
        conv(torch.randn(1, 2, 5, 5)).square().sum().backward()
        along = (conv.weight * conv.weight.grad).sum()
        assert_near(along, torch.tensor(0.0), 1e-4, floor=conv.weight.grad.norm().item())

    def test_attention_starts_as_the_identity(self):
        feature = torch.randn(2, 8, 3, 4)
        assert torch.equal(SelfAttention(8)(feature), feature)

    def test_attention_by_hand(self):
        # Two positions with q = (0, 1), k = (log 3, 0), v = (1, 5). Position 0 sees energies (0, 0): mean 3. Position 1
        # sees (log 3, 0): 3/4 * 1 + 1/4 * 5 = 2.
        attention = SelfAttention(3)
        with torch.no_grad():
            for index, conv in enumerate((attention.query, attention.key)):
                conv.weight.copy_(nn.functional.one_hot(torch.tensor([index]), 3).view(1, 3, 1, 1))
                conv.bias.zero_()
            attention.value.weight.copy_(torch.tensor([[0.0, 0, 1]] * 3).view(3, 3, 1, 1))
            attention.value.bias.zero_()
            attention.gamma.fill_(2.0)
        feature = torch.tensor([[0.0, 1.0], [1.0986123, 0.0], [1.0, 5.0]]).view(1, 3, 1, 2)
        assert_near(attention(feature) - feature, torch.tensor([6.0, 4.0]).expand(1, 3, 1, 2), 1e-6)

    def test_losses_by_hand(self):
        teacher, student = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 1.0])
        assert generator_loss(student) == 1
        # -(0.5 + 2) / 2 + (-3 + 1) / 2
        assert discriminator_loss(teacher, student) == -2.25
        # (0.5 + 0) / 2 + (0 + 2) / 2
        assert discriminator_loss(teacher, student, adversary='hinge') == 1.25

    def test_penalty_by_hand(self):
        # D(x) = |x|^2 / 2 has the gradient x. Halfway between (6, 0) and (0, 8) it is (3, 4), of length 5: 16.
        teacher, student = torch.tensor([6.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 8.0]).view(1, 2, 1, 1)
        mix = torch.full((1, 1, 1, 1), 0.5)
        penalty = gradient_penalty(lambda x: (x**2).sum((1, 2, 3)) / 2, teacher, student, mix)
        assert_near(penalty, torch.tensor(16.0), 1e-6)
        # With a share of 1 only the teacher is left: (6 - 1)^2.
        penalty = gradient_penalty(lambda x: (x**2).sum((1, 2, 3)) / 2, teacher, student, mix * 2)
        assert_near(penalty, torch.tensor(25.0), 1e-6)

    def test_penalty_does_not_reach_the_models(self):
        pair = torch.ones(2, 1, 2, 2, 2, requires_grad=True)
        gradient_penalty(lambda x: (x**2).sum((1, 2, 3)), pair[0], pair[1]).backward()
        assert pair.grad is None

    def test_flat_discriminator_has_a_finite_penalty(self):
        scale = torch.zeros(1, requires_grad=True)
        penalty = gradient_penalty(
            lambda x: (x * scale).sum((1, 2, 3)), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        )
        penalty.backward()
        assert penalty == 1
        assert torch.isfinite(scale.grad).all()

    def test_unknown_adversary_is_refused(self):
        with pytest.raises(ValueError, match="'wgan', 'hinge'.*'lsgan'"):
            HolisticLoss(3, adversary='lsgan')
