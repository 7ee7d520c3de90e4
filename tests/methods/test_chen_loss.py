"""The loss modules of Chen et al. 2017 against recorded numbers and arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.loss_tester import Golden, LossTester
from _helpers.ranks import terms_on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from mmkd_plugin.methods import ChenClassificationLoss, ChenHintLoss, ChenRegressionLoss, DistillLoss
from mmkd_plugin.registry import MODELS

LOG2 = math.log(2)


class WithHardLoss(DistillLoss):
    """The distillation loss together with a hard one, as the student would add them."""

    def __init__(self, loss: DistillLoss, hard) -> None:
        super().__init__()
        self.loss = loss
        self.hard = hard

    def terms(self, student: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        return {**self.loss.terms(student=student, **inputs), 'hard': self.hard(student)}


class Adapted(DistillLoss):
    """The hint loss behind a 1x1 convolution."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 8, 1)
        self.loss = ChenHintLoss(**options)

    def terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        return self.loss.terms(self.conv(student), teacher)


class TestChenClassificationLoss(LossTester):
    golden_names = ('T1.mean', 'T1.sum', 'T2.mean', 'T2.sum', 'total')
    term_weights = {'soft': 'loss_weight'}

    def build(self, **options):
        return ChenClassificationLoss(**options)

    def inputs(self):
        student, teacher = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
        return {'student': student, 'teacher': teacher, 'weight': torch.tensor([1.0, 0, 1, 1, 1, 0, 1])}

    def golden(self, name):
        data = read_golden('chen_cls_bg_last')
        inputs = {'student': data['logits_student'], 'teacher': data['logits_teacher']}
        if name == 'total':
            mu, label = data['mu'].item(), data['label']
            loss = WithHardLoss(ChenClassificationLoss(mu), lambda x: mu * cross_entropy(x, label))
            terms = {
                'soft': (1 - mu) * data['T1.soft_mean'],
                'hard': data['cls_total'] - (1 - mu) * data['T1.soft_mean'],
            }
            return Golden(loss, inputs, terms, {'student': data['grad_cls_total']})
        temperature, reduction = name.split('.')
        loss = ChenClassificationLoss(0, temperature=float(temperature[1:]))
        if reduction == 'sum':
            inputs['avg_factor'] = 1
        terms = {'soft': data[f'{temperature}.soft_{reduction}']}
        return Golden(loss, inputs, terms, {'student': data[f'{temperature}.grad_soft_{reduction}']})

    def test_options_reach_the_formula(self):
        # At T = log 3 / log 2 the teacher's odds of 3 become 2. Weight 3 of column 0: 3 * 2/3 + 1/3.
        teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
        loss = ChenClassificationLoss(0, 3.0, background_index=0, temperature=math.log(3) / LOG2)
        assert_near(loss(student, teacher), torch.tensor((3 * 2 / 3 + 1 / 3) * LOG2), 1e-6)

    def test_sigmoid_by_hand(self):
        # The teacher says 3/4: 1.5 * 1/4 + 3/4 times log 2; and of two classes the sum.
        teacher, student = torch.full((3, 2), math.log(3.0)), torch.zeros(3, 2)
        one = (1.5 / 4 + 3 / 4) * LOG2
        assert_near(ChenClassificationLoss(0, sigmoid=True)(student, teacher), torch.tensor(2 * one), 1e-6)

    def test_sigmoid_of_extreme_logits_is_finite(self):
        student = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
        loss = ChenClassificationLoss(0, sigmoid=True)(student, -student.detach())
        loss.backward()
        # Anchor 0: 1.5 * 1000; anchor 1: 1000.
        assert loss == 1250
        assert student.grad.tolist() == [[0.75], [-0.5]]

    def test_share_of_the_hard_loss(self):
        # Without any the soft loss counts in full; with three quarters, a quarter of it; with all, nothing.
        inputs = self.inputs()
        full = self.build(hard_share=0)(**inputs)
        assert_near(self.build(hard_share=0.75)(**inputs), full / 4, 1e-6)
        assert self.build(hard_share=1).terms(**inputs) == {}

    def test_unsampled_anchors_do_not_count(self):
        inputs = self.inputs()
        sampled = inputs['weight'] > 0
        few = {name: item[sampled] for name, item in inputs.items()}
        assert_near(self.build()(**inputs), self.build()(**few), 1e-6)

    def test_given_factor_divides(self):
        inputs = self.inputs()
        expected = self.build()(**inputs) * 5 / 20
        for factor in (20, torch.tensor(20.0)):
            assert_near(self.build()(**inputs, avg_factor=factor), expected, 1e-6)

    def test_few_positives_count_as_ten_an_image(self):
        inputs, numbers = self.inputs(), dict(images=torch.tensor(3.0), sampled=torch.tensor(5000.0))
        plain = self.build()(**inputs, avg_factor=1)
        for factor, expected in ((4.0, 30), (60.0, 60)):
            assert_near(self.build()(**inputs, avg_factor=torch.tensor(factor), **numbers), plain / expected, 1e-6)
        four = self.build(min_positives=0)(**inputs, avg_factor=torch.tensor(4.0), **numbers)
        assert_near(four, plain / 4, 1e-6)

    @pytest.mark.parametrize('size', [0, 4])
    def test_nothing_sampled_gives_zero(self, size):
        student = torch.randn(size, 5, requires_grad=True)
        loss = self.build()(student, torch.randn(size, 5), torch.zeros(size))
        loss.backward()
        assert loss == 0
        assert student.grad.eq(0).all()

    def test_ranks_share_the_normaliser(self):
        # Three proposals were sampled on the first rank, two on the second.
        inputs = self.inputs()
        ranks = [{name: item[part] for name, item in inputs.items()} for part in (slice(0, 4), slice(4, 7))]
        losses = [terms['soft'] for terms in terms_on_ranks(self.build(), ranks)]
        assert_near((losses[0] + losses[1]) / 2, self.build()(**inputs), 1e-6)

    def test_different_class_counts_are_refused(self):
        with pytest.raises(ValueError, match=r'\(4, 5\).*\(4, 6\)'):
            self.build()(torch.zeros(4, 5), torch.zeros(4, 6))

    def test_zero_temperature_is_refused(self):
        with pytest.raises(ValueError, match='"ChenClassificationLoss.temperature" is 0; it must be a number above 0'):
            ChenClassificationLoss(temperature=0)


class TestSigmoidClassificationLoss(LossTester):
    term_weights = {'soft': 'loss_weight'}
    # No recorded numbers; the formula is checked by hand above.
    test_equals_golden = None  # type: ignore[assignment]

    def build(self, **options):
        return ChenClassificationLoss(sigmoid=True, **options)

    def inputs(self):
        return TestChenClassificationLoss().inputs()


class TestChenRegressionLoss(LossTester):
    golden_names = tuple(f'm{margin}.{part}' for margin in ('0', '0.25', '0.5') for part in ('sum', 'mean', 'total'))
    term_weights = {'bounded': 'loss_weight'}

    def build(self, **options):
        return ChenRegressionLoss(**options)

    def inputs(self):
        student, teacher, target = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(1))
        weight = torch.tensor([1.0, 0, 1, 1, 1, 0, 1, 1])
        return {'student': student, 'teacher': teacher, 'target': target, 'weight': weight}

    def golden(self, name):
        data = read_golden('chen_bounded_regression')
        group, part = name.rsplit('.', 1)
        margin, nu, target = float(group[1:]), data['nu'].item(), data['y']
        inputs = {'student': data['R_s'], 'teacher': data['R_t'], 'target': target}
        if part == 'mean':
            loss = ChenRegressionLoss(margin=margin, loss_weight=1)
            gradients = {'student': data[f'{group}.grad_Lb_sum'] / 12}
            return Golden(loss, inputs, {'bounded': data[f'{group}.Lb_mean_over_boxes']}, gradients)
        inputs['avg_factor'] = 1
        if part == 'sum':
            loss = ChenRegressionLoss(margin=margin, loss_weight=1)
            gradients = {'student': data[f'{group}.grad_Lb_sum']}
            return Golden(loss, inputs, {'bounded': data[f'{group}.Lb_sum']}, gradients)
        loss = WithHardLoss(
            ChenRegressionLoss(margin=margin, loss_weight=nu),
            lambda x: smooth_l1_loss(x, target.to(x), reduction='sum'),
        )
        bounded = nu * data[f'{group}.Lb_sum']
        terms = {'bounded': bounded, 'hard': data[f'{group}.Lreg_sum'] - bounded}
        return Golden(loss, inputs, terms, {'student': data[f'{group}.grad_Lreg_sum']})

    def test_negatives_do_not_count_but_are_divided_by(self):
        inputs = self.inputs()
        sampled = inputs['weight'] > 0
        few = {name: item[sampled] for name, item in inputs.items()}
        assert_near(self.build()(**inputs), self.build()(**few) * 6 / 8, 1e-6)

    def test_given_factor_divides(self):
        inputs = self.inputs()
        expected = self.build()(**inputs) * 8 / 20
        for factor in (20, torch.tensor(20.0)):
            assert_near(self.build()(**inputs, avg_factor=factor), expected, 1e-6)

    def test_ranks_share_the_normaliser(self):
        # Five proposals on the first rank, three on the second.
        inputs = self.inputs()
        ranks = [{name: item[part] for name, item in inputs.items()} for part in (slice(0, 5), slice(5, 8))]
        losses = [terms['bounded'] for terms in terms_on_ranks(self.build(), ranks)]
        assert_near((losses[0] + losses[1]) / 2, self.build()(**inputs), 1e-6)

    def test_no_proposals_give_zero(self):
        student = torch.zeros(0, 4, requires_grad=True)
        loss = self.build()(student, torch.zeros(0, 4), torch.zeros(0, 4))
        loss.backward()
        assert loss == 0

    def test_plain_distance_by_hand(self):
        # 3 - 1 squared against the teacher; bounded, 3 squared against the truth.
        student, teacher, target = torch.tensor([[3.0, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 4)
        assert ChenRegressionLoss('l2', loss_weight=1).terms(student, teacher, target) == {'l2': 4}
        assert ChenRegressionLoss(loss_weight=1).terms(student, teacher, target) == {'bounded': 9}


class TestPlainRegressionLoss(LossTester):
    term_weights = {'l2': 'loss_weight'}
    # No recorded numbers; the formula is checked by hand above.
    test_equals_golden = None  # type: ignore[assignment]

    def build(self, **options):
        return ChenRegressionLoss(form='l2', **options)

    def inputs(self):
        return TestChenRegressionLoss().inputs()


class TestChenHintLoss(LossTester):
    golden_names = ('l2.sum', 'l2.batchmean', 'l2.mean', 'l1.sum', 'l1.mean')
    term_weights = {'hint': 'loss_weight'}

    def build(self, **options):
        return ChenHintLoss(**options)

    def inputs(self):
        student, teacher = torch.randn(2, 3, 6, 4, 5, generator=torch.Generator().manual_seed(1))
        return {'student': student, 'teacher': teacher}

    def golden(self, name):
        data = read_golden('chen_hint')
        norm, reduction = name.split('.')
        loss = Adapted(loss_weight=1, norm=norm, reduction=reduction).double()
        loss.conv.load_state_dict({'weight': data['adapt_weight'], 'bias': data['adapt_bias']})
        key = {'sum': 'sum', 'batchmean': 'sum_over_batch', 'mean': 'mean'}[reduction]
        scale = {'sum': 1, 'batchmean': 2, 'mean': data['teacher_feat'].numel()}[reduction]
        gradients = {'student': data[f'grad_x_{norm}_sum'] / scale}
        if norm == 'l2':
            gradients['conv.weight'] = data['grad_weight_l2_sum'] / scale
            gradients['conv.bias'] = data['grad_bias_l2_sum'] / scale
        inputs = {'student': data['student_feat'], 'teacher': data['teacher_feat']}
        return Golden(loss, inputs, {'hint': data[f'{norm}_{key}']}, gradients)

    @pytest.mark.parametrize('option', ['norm', 'reduction'])
    def test_unknown_option_is_refused(self, option):
        with pytest.raises(ValueError, match=f"\"ChenHintLoss.{option}\" is 'l3'; it must be '(l2|mean)' or "):
            ChenHintLoss(**{option: 'l3'})

    def test_different_sizes_are_refused(self):
        with pytest.raises(ValueError, match='connector'):
            self.build()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize('loss', [ChenClassificationLoss, ChenRegressionLoss, ChenHintLoss])
def test_it_is_registered(loss):
    assert MODELS.module_dict[loss.__name__] is loss
