"""The losses of Chen et al. 2017 against recorded numbers and arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.loss_tester import Golden, LossTester, assert_near, read_golden
from _helpers.ranks import terms_on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from mmkd_plugin.functional import (
    bounded_regression,
    hint_loss,
    weighted_soft_binary_cross_entropy,
    weighted_soft_cross_entropy,
)
from mmkd_plugin.methods import ChenClassificationLoss, ChenHintLoss, ChenRegressionLoss
from mmkd_plugin.registry import MODELS

LOG2 = math.log(2)


class WithHardLoss(nn.Module):
    """The distillation loss together with a hard one, as the student would add them."""

    def __init__(self, loss: nn.Module, hard) -> None:
        super().__init__()
        self.loss = loss
        self.hard = hard

    def forward(self, student: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        return {**self.loss(student=student, **inputs), 'hard': self.hard(student)}


class Adapted(nn.Module):
    """The hint loss behind a 1x1 convolution."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 8, 1)
        self.loss = ChenHintLoss(**options)

    def forward(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        return self.loss(self.conv(student), teacher)


class TestChenClassificationLoss(LossTester):
    golden_names = ('T1.mean', 'T1.sum', 'T2.mean', 'T2.sum', 'total')
    term_weights = {'soft': 'soft_weight'}

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
            loss = WithHardLoss(ChenClassificationLoss(1 - mu), lambda x: mu * cross_entropy(x, label))
            terms = {
                'soft': (1 - mu) * data['T1.soft_mean'],
                'hard': data['cls_total'] - (1 - mu) * data['T1.soft_mean'],
            }
            return Golden(loss, inputs, terms, {'student': data['grad_cls_total']})
        temperature, reduction = name.split('.')
        loss = ChenClassificationLoss(1, temperature=float(temperature[1:]))
        if reduction == 'sum':
            inputs['avg_factor'] = 1
        terms = {'soft': data[f'{temperature}.soft_{reduction}']}
        return Golden(loss, inputs, terms, {'student': data[f'{temperature}.grad_soft_{reduction}']})

    def test_each_roi_and_wrong_readings(self):
        data = read_golden('chen_cls_bg_last')
        student, teacher = data['logits_student'], data['logits_teacher']
        losses = weighted_soft_cross_entropy(student, teacher)
        assert_near(losses, data['T1.soft_per_roi'], 1e-9)
        assert (losses.mean() - data['negctl_soft_mean_weight_by_gt_label']).abs() > 0.1
        unweighted = weighted_soft_cross_entropy(student, teacher, background_weight=1)
        assert_near(unweighted.mean(), data['T1.soft_mean_unweighted'], 1e-9)

    def test_two_classes_by_hand(self):
        # The teacher says 3/4 and 1/4, the student 1/2 and 1/2: log 2 times 3/4 + 1/4, one of them weighted with 2.
        teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
        for index, expected in ((-1, 3 / 4 + 2 / 4), (1, 3 / 4 + 2 / 4), (0, 6 / 4 + 1 / 4)):
            loss = weighted_soft_cross_entropy(student, teacher, background_weight=2, background_index=index)
            assert_near(loss, torch.tensor([expected * LOG2]), 1e-6)

    def test_options_reach_the_formula(self):
        # At T = log 3 / log 2 the teacher's odds of 3 become 2. Weight 3 of column 0: 3 * 2/3 + 1/3.
        teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
        loss = ChenClassificationLoss(1, 3.0, background_index=0, temperature=math.log(3) / LOG2)
        assert_near(loss(student, teacher)['soft'], torch.tensor((3 * 2 / 3 + 1 / 3) * LOG2), 1e-6)

    def test_sigmoid_by_hand(self):
        # The teacher says 3/4: 1.5 * 1/4 + 3/4 times log 2; and of two classes the sum.
        teacher, student = torch.full((3, 2), math.log(3.0)), torch.zeros(3, 2)
        one = (1.5 / 4 + 3 / 4) * LOG2
        assert_near(ChenClassificationLoss(1, sigmoid=True)(student, teacher)['soft'], torch.tensor(2 * one), 1e-6)

    def test_sigmoid_is_the_softmax_of_two_classes(self):
        # sigmoid(x) is the first probability of softmax((x, 0)); the second column is the background.
        student, teacher = torch.randn(2, 9, 1, generator=torch.Generator().manual_seed(2))
        pair = [torch.cat([x, torch.zeros(9, 1)], 1) for x in (student, teacher)]
        for temperature in (1.0, 2.0):
            expected = weighted_soft_cross_entropy(*pair, temperature=temperature)
            actual = weighted_soft_binary_cross_entropy(student, teacher, temperature=temperature)
            assert_near(actual, expected, 1e-5)

    def test_sigmoid_of_extreme_logits_is_finite(self):
        student = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
        loss = ChenClassificationLoss(1, sigmoid=True)(student, -student.detach())['soft']
        loss.backward()
        # Anchor 0: 1.5 * 1000; anchor 1: 1000.
        assert loss == 1250
        assert student.grad.tolist() == [[0.75], [-0.5]]

    def test_unsampled_anchors_do_not_count(self):
        inputs = self.inputs()
        sampled = inputs['weight'] > 0
        few = {name: item[sampled] for name, item in inputs.items()}
        assert_near(self.build()(**inputs)['soft'], self.build()(**few)['soft'], 1e-6)

    def test_given_factor_divides(self):
        inputs = self.inputs()
        expected = self.build()(**inputs)['soft'] * 5 / 20
        for factor in (20, torch.tensor(20.0)):
            assert_near(self.build()(**inputs, avg_factor=factor)['soft'], expected, 1e-6)

    @pytest.mark.parametrize('size', [0, 4])
    def test_nothing_sampled_gives_zero(self, size):
        student = torch.randn(size, 5, requires_grad=True)
        loss = self.build()(student, torch.randn(size, 5), torch.zeros(size))['soft']
        loss.backward()
        assert loss == 0
        assert student.grad.eq(0).all()

    def test_ranks_share_the_normaliser(self):
        # Three proposals were sampled on the first rank, two on the second.
        inputs = self.inputs()
        ranks = [{name: item[part] for name, item in inputs.items()} for part in (slice(0, 4), slice(4, 7))]
        losses = [terms['soft'] for terms in terms_on_ranks(self.build(), ranks)]
        assert_near((losses[0] + losses[1]) / 2, self.build()(**inputs)['soft'], 1e-6)

    def test_different_class_counts_are_refused(self):
        with pytest.raises(ValueError, match=r'\(4, 5\).*\(4, 6\)'):
            self.build()(torch.zeros(4, 5), torch.zeros(4, 6))

    def test_zero_temperature_is_refused(self):
        with pytest.raises(ValueError, match='temperature'):
            ChenClassificationLoss(temperature=0)


class TestSigmoidClassificationLoss(LossTester):
    term_weights = {'soft': 'soft_weight'}
    # No recorded numbers; the formula is checked by hand above.
    test_equals_golden = None  # type: ignore[assignment]

    def build(self, **options):
        return ChenClassificationLoss(sigmoid=True, **options)

    def inputs(self):
        return TestChenClassificationLoss().inputs()


class TestChenRegressionLoss(LossTester):
    golden_names = tuple(f'm{margin}.{part}' for margin in ('0', '0.25', '0.5') for part in ('sum', 'mean', 'total'))
    term_weights = {'bounded': 'regression_weight'}

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
            loss = ChenRegressionLoss(1, margin=margin)
            gradients = {'student': data[f'{group}.grad_Lb_sum'] / 12}
            return Golden(loss, inputs, {'bounded': data[f'{group}.Lb_mean_over_boxes']}, gradients)
        inputs['avg_factor'] = 1
        if part == 'sum':
            loss = ChenRegressionLoss(1, margin=margin)
            gradients = {'student': data[f'{group}.grad_Lb_sum']}
            return Golden(loss, inputs, {'bounded': data[f'{group}.Lb_sum']}, gradients)
        loss = WithHardLoss(
            ChenRegressionLoss(nu, margin=margin), lambda x: smooth_l1_loss(x, target.to(x), reduction='sum')
        )
        bounded = nu * data[f'{group}.Lb_sum']
        terms = {'bounded': bounded, 'hard': data[f'{group}.Lreg_sum'] - bounded}
        return Golden(loss, inputs, terms, {'student': data[f'{group}.grad_Lreg_sum']})

    @pytest.mark.parametrize('margin', ['0', '0.25', '0.5'])
    def test_each_box_and_wrong_readings(self, margin):
        data = read_golden('chen_bounded_regression')
        losses = bounded_regression(data['R_s'], data['R_t'], data['y'], margin=float(margin))
        assert_near(losses, data[f'm{margin}.Lb_per_box'], 1e-9)
        assert torch.equal(losses > 0, data[f'm{margin}.gate'] & (data['err_s'] > 0))
        assert (losses.sum() - data[f'm{margin}.negctl_per_coordinate_gate_sum']).abs() > 0.01
        assert (losses.mean() - data[f'm{margin}.negctl_batch_gated_mse']).abs() > 0.01

    def test_tie_by_hand(self):
        # Both are off by 1: not larger, so 0; with any margin the student's own distance of 1.
        student, target = torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 4)
        teacher = torch.tensor([[0.0, 1, 0, 0]])
        assert bounded_regression(student, teacher, target).tolist() == [0]
        assert bounded_regression(student, teacher, target, margin=0.1).tolist() == [1]

    def test_negatives_do_not_count_but_are_divided_by(self):
        inputs = self.inputs()
        sampled = inputs['weight'] > 0
        few = {name: item[sampled] for name, item in inputs.items()}
        assert_near(self.build()(**inputs)['bounded'], self.build()(**few)['bounded'] * 6 / 8, 1e-6)

    def test_given_factor_divides(self):
        inputs = self.inputs()
        expected = self.build()(**inputs)['bounded'] * 8 / 20
        for factor in (20, torch.tensor(20.0)):
            assert_near(self.build()(**inputs, avg_factor=factor)['bounded'], expected, 1e-6)

    def test_ranks_share_the_normaliser(self):
        # Five proposals on the first rank, three on the second.
        inputs = self.inputs()
        ranks = [{name: item[part] for name, item in inputs.items()} for part in (slice(0, 5), slice(5, 8))]
        losses = [terms['bounded'] for terms in terms_on_ranks(self.build(), ranks)]
        assert_near((losses[0] + losses[1]) / 2, self.build()(**inputs)['bounded'], 1e-6)

    def test_no_proposals_give_zero(self):
        student = torch.zeros(0, 4, requires_grad=True)
        loss = self.build()(student, torch.zeros(0, 4), torch.zeros(0, 4))['bounded']
        loss.backward()
        assert loss == 0

    def test_plain_distance_by_hand(self):
        # 3 - 1 squared against the teacher; bounded, 3 squared against the truth.
        student, teacher, target = torch.tensor([[3.0, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 4)
        assert ChenRegressionLoss(1, 'l2')(student, teacher, target) == {'l2': 4}
        assert ChenRegressionLoss(1)(student, teacher, target) == {'bounded': 9}


class TestPlainRegressionLoss(LossTester):
    term_weights = {'l2': 'regression_weight'}
    # No recorded numbers; the formula is checked by hand above.
    test_equals_golden = None  # type: ignore[assignment]

    def build(self, **options):
        return ChenRegressionLoss(form='l2', **options)

    def inputs(self):
        return TestChenRegressionLoss().inputs()


class TestChenHintLoss(LossTester):
    golden_names = ('l2.sum', 'l2.batch', 'l2.mean', 'l1.sum', 'l1.mean')
    term_weights = {'hint': 'hint_weight'}

    def build(self, **options):
        return ChenHintLoss(**options)

    def inputs(self):
        student, teacher = torch.randn(2, 3, 6, 4, 5, generator=torch.Generator().manual_seed(1))
        return {'student': student, 'teacher': teacher}

    def golden(self, name):
        data = read_golden('chen_hint')
        norm, reduction = name.split('.')
        loss = Adapted(hint_weight=1, norm=norm, reduction=reduction).double()
        loss.conv.load_state_dict({'weight': data['adapt_weight'], 'bias': data['adapt_bias']})
        key = {'sum': 'sum', 'batch': 'sum_over_batch', 'mean': 'mean'}[reduction]
        scale = {'sum': 1, 'batch': 2, 'mean': data['teacher_feat'].numel()}[reduction]
        gradients = {'student': data[f'grad_x_{norm}_sum'] / scale}
        if norm == 'l2':
            gradients['conv.weight'] = data['grad_weight_l2_sum'] / scale
            gradients['conv.bias'] = data['grad_bias_l2_sum'] / scale
        inputs = {'student': data['student_feat'], 'teacher': data['teacher_feat']}
        return Golden(loss, inputs, {'hint': data[f'{norm}_{key}']}, gradients)

    def test_by_hand(self):
        # Differences 3 and -1 in each of two images.
        student, teacher = torch.tensor([[4.0, 0.0]] * 2), torch.ones(2, 2)
        for norm, reduction, expected in (
            ('l2', 'sum', 20),
            ('l2', 'batch', 10),
            ('l2', 'mean', 5),
            ('l1', 'sum', 8),
            ('l1', 'batch', 4),
            ('l1', 'mean', 2),
        ):
            assert hint_loss(student, teacher, norm=norm, reduction=reduction) == expected

    @pytest.mark.parametrize('option', ['norm', 'reduction'])
    def test_unknown_option_is_refused(self, option):
        with pytest.raises(ValueError, match=f"{option} must be one of.*'l3'"):
            ChenHintLoss(**{option: 'l3'})

    def test_different_sizes_are_refused(self):
        with pytest.raises(ValueError, match='connector'):
            self.build()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize('loss', [ChenClassificationLoss, ChenRegressionLoss, ChenHintLoss])
def test_it_is_registered(loss):
    assert MODELS.module_dict[loss.__name__] is loss
