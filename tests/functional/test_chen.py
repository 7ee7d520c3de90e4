"""The formulas of Chen et al. 2017 against recorded numbers and arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.memory import PeakMemory
from _helpers.precision import assert_full_precision

from mmkd_plugin.functional import (
    bounded_regression,
    hint_loss,
    reductions,
    soft_class_count,
    squared_distance,
    weighted_soft_binary_cross_entropy,
    weighted_soft_cross_entropy,
)

LOG2 = math.log(2)
OF_TWO = (weighted_soft_cross_entropy, weighted_soft_binary_cross_entropy, squared_distance, hint_loss)


class TestSoftCrossEntropy:
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

    def test_temperature_by_hand(self):
        # At T = 2 odds of 9 become 3 for the teacher, 1 for the student: log 2 * (3/4 + 1.5 / 4).
        teacher, student = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
        loss = weighted_soft_cross_entropy(student, teacher, temperature=2)
        assert_near(loss, torch.tensor([(3 / 4 + 1.5 / 4) * LOG2]), 1e-6)
        # The other way round: teacher 1/2 and 1/2, student 3/4 and 1/4.
        loss = weighted_soft_cross_entropy(teacher, student, temperature=2)
        assert_near(loss, torch.tensor([-math.log(3 / 4) / 2 - 1.5 * math.log(1 / 4) / 2]), 1e-6)

    def test_classes_are_the_last_of_several_dimensions(self):
        # Three classes in a batch of 2 x 2 x 1: log 3 * (1/3 + 1/3 + 1.5 / 3) each.
        loss = weighted_soft_cross_entropy(torch.zeros(2, 2, 1, 3), torch.zeros(2, 2, 1, 3))
        assert_near(loss, torch.full((2, 2, 1), math.log(3) * 3.5 / 3), 1e-6)


class TestSoftBinaryCrossEntropy:
    def test_by_hand(self):
        # The teacher says 3/4: 1.5 * 1/4 + 3/4 times log 2, and of two classes the sum.
        teacher, student = torch.full((3, 2), math.log(3.0)), torch.zeros(3, 2)
        loss = weighted_soft_binary_cross_entropy(student, teacher)
        assert_near(loss, torch.full((3,), 2 * (1.5 / 4 + 3 / 4) * LOG2), 1e-6)

    def test_it_is_the_softmax_of_two_classes(self):
        # sigmoid(x) is the first probability of softmax((x, 0)); the second column is the background.
        student, teacher = torch.randn(2, 9, 1, generator=torch.Generator().manual_seed(2))
        pair = [torch.cat([x, torch.zeros(9, 1)], 1) for x in (student, teacher)]
        for options in ({}, {'temperature': 2.0}, {'background_weight': 3.0}):
            expected = weighted_soft_cross_entropy(*pair, **options)
            assert_near(weighted_soft_binary_cross_entropy(student, teacher, **options), expected, 1e-5)

    def test_classes_are_the_last_of_several_dimensions(self):
        loss = weighted_soft_binary_cross_entropy(torch.zeros(2, 2, 1, 3), torch.zeros(2, 2, 1, 3))
        assert_near(loss, torch.full((2, 2, 1), 3 * (1.5 / 2 + 1 / 2) * LOG2), 1e-6)


@pytest.fixture(params=[2**18, 13, 1], ids=lambda values: f'{values} values a block')
def block(request, monkeypatch):
    """Blocks of all rows, of some and of one."""
    monkeypatch.setattr(reductions, 'BLOCK', request.param)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)


class TestBinaryGradient:
    """The gradient of the sigmoid's cross-entropy is written by hand."""

    @staticmethod
    def plainly(student, teacher, weight=1.5, temperature=1.0):
        """The formula as it reads."""
        ours, theirs = (student / temperature).sigmoid(), (teacher / temperature).sigmoid()
        return -(weight * (1 - theirs) * (1 - ours).log() + theirs * ours.log()).sum(-1)

    @pytest.mark.usefixtures('block')
    @pytest.mark.parametrize('options', [(1.5, 1.0), (0.0, 1.0), (2.0, 3.0)])
    @pytest.mark.parametrize('shape', [(7, 4), (1, 1), (2, 3, 5), (0, 3)], ids=str)
    def test_equal_to_the_formula(self, shape, options):
        random = torch.Generator().manual_seed(0)
        student, teacher = 3 * torch.randn(2, *shape, generator=random, dtype=torch.float64)
        student.requires_grad_()
        given = dict(background_weight=options[0], temperature=options[1])
        ours = weighted_soft_binary_cross_entropy(student, teacher, **given)
        expected = self.plainly(student, teacher, *options)
        assert ours.shape == expected.shape == shape[:-1]
        assert_near(ours, expected, 1e-9)
        mixed = torch.arange(1.0, ours.numel() + 1, dtype=torch.float64).view_as(ours)
        found, wanted = (torch.autograd.grad((mixed * side).sum(), student)[0] for side in (ours, expected))
        assert_near(found, wanted, 1e-9, floor=1e-9)

    def test_both_orders(self):
        student, teacher = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        student.requires_grad_()

        def loss(x):
            return weighted_soft_binary_cross_entropy(x, teacher, background_weight=1.7, temperature=2.0)

        assert torch.autograd.gradcheck(loss, student)
        assert torch.autograd.gradgradcheck(loss, student)

    @pytest.mark.parametrize(('ours', 'theirs'), [(30.0, 30.0), (-30.0, -30.0)])
    def test_nothing_cancels_far_from_zero(self, ours, theirs):
        # p log p and (1 - p) log (1 - p) with 1 - p = e^-30, whose logarithm is -30: e^-30 + 30 e^-30.
        student = torch.tensor([[ours]], requires_grad=True)
        loss = weighted_soft_binary_cross_entropy(student, torch.tensor([[theirs]]), background_weight=1.0)
        assert_near(loss, torch.tensor([31 * math.exp(-30)]), 1e-5)
        assert_near(torch.autograd.grad(loss, student)[0] + 1, torch.ones(1, 1), 1e-6)

    def test_only_the_logits_are_kept(self, monkeypatch):
        monkeypatch.setattr(reductions, 'BLOCK', 100)
        monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
        student, teacher, kept = torch.randn(500, 20, requires_grad=True), torch.randn(500, 20), []
        keeping = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
        with keeping, PeakMemory() as memory:
            loss = weighted_soft_binary_cross_entropy(student, teacher).sum()
        assert {tensor.data_ptr() for tensor in kept} == {student.data_ptr(), teacher.data_ptr()}
        assert memory.peak < 4 * 500 * 20 / 4
        with PeakMemory() as memory:
            loss.backward()
        assert memory.peak < 1.25 * 4 * 500 * 20


class TestBoundedRegression:
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

    def test_several_dimensions_by_hand(self):
        # 1 + 1 + 1 + 1 against a teacher who is off by 0, and 0 against one who is off by 3 * 4.
        student = torch.tensor([[[1.0, 1, 1, 1], [1, 1, 1, 1]]])
        teacher = torch.tensor([[[0.0, 0, 0, 0], [2, 2, 2, 0]]])
        assert bounded_regression(student, teacher, torch.zeros(1, 2, 4)).tolist() == [[4, 0]]

    def test_nobody_but_the_student_gets_a_gradient(self):
        inputs = torch.randn(3, 5, 4, requires_grad=True)
        bounded_regression(*inputs, margin=100.0).sum().backward()
        # 2 (student - target) on every box.
        assert torch.equal(inputs.grad[0], 2 * (inputs[0] - inputs[2]))
        assert inputs.grad[1:].eq(0).all()

    def test_half_precision(self):
        assert_full_precision(bounded_regression, *torch.randn(3, 5, 4))

    def test_different_shapes_are_refused(self):
        with pytest.raises(ValueError, match=r'student gives \(3, 4\) and the teacher \(2, 4\)'):
            bounded_regression(torch.zeros(3, 4), torch.zeros(2, 4), torch.zeros(3, 4))


class TestSquaredDistance:
    def test_by_hand(self):
        # 2^2 + 1^2 and 0, of boxes in two dimensions.
        student = torch.tensor([[[3.0, 1, 0, 0], [1, 2, 3, 4]]])
        teacher = torch.tensor([[[1.0, 0, 0, 0], [1, 2, 3, 4]]])
        assert squared_distance(student, teacher).tolist() == [[5, 0]]


class TestHintLoss:
    def test_only_the_features_are_kept(self):
        student, teacher, kept = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            hint_loss(student, teacher)
        assert {tensor.data_ptr() for tensor in kept} == {student.data_ptr(), teacher.data_ptr()}

    def test_by_hand(self):
        # Differences 3 and -1 in each of two images.
        student, teacher = torch.tensor([[4.0, 0.0]] * 2), torch.ones(2, 2)
        for norm, reduction, expected in (
            ('l2', 'sum', 20),
            ('l2', 'batchmean', 10),
            ('l2', 'mean', 5),
            ('l1', 'sum', 8),
            ('l1', 'batchmean', 4),
            ('l1', 'mean', 2),
        ):
            assert hint_loss(student, teacher, norm=norm, reduction=reduction) == expected
        assert hint_loss(student, teacher) == 5

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'norm': 'l3'}, "norm must be one of 'l2', 'l1', but it is 'l3'."),
            ({'reduction': 'batch'}, "reduction must be one of 'mean', 'batchmean', 'sum', but it is 'batch'."),
        ],
    )
    def test_unknown_option_is_refused(self, options, message):
        with pytest.raises(ValueError) as error:
            hint_loss(torch.zeros(1, 1), torch.zeros(1, 1), **options)
        assert str(error.value) == message


@pytest.mark.parametrize('function', OF_TWO)
class TestAll:
    def test_half_precision(self, function):
        assert_full_precision(function, *torch.randn(2, 5, 4) * 30)

    def test_the_teacher_gets_no_gradient(self, function):
        pair = torch.randn(2, 5, 4, requires_grad=True)
        function(*pair).sum().backward()
        assert pair.grad[0].ne(0).all()
        assert pair.grad[1].eq(0).all()

    def test_different_shapes_are_refused(self, function):
        with pytest.raises(ValueError) as error:
            function(torch.zeros(4, 5), torch.zeros(4, 6))
        assert str(error.value) == (
            'Student and teacher are compared element by element, but the student gives (4, 5) and the teacher (4, 6); '
            'add a connector that adapts the channels and the size of the student.'
        )


class TestSoftClassCount:
    @pytest.mark.parametrize(
        ('positives', 'images', 'sampled', 'expected'),
        [
            # Many positives count as they are, few as ten an image, and never more than there are anchors.
            (228, 8, 24000, 228),
            (3, 2, 3000, 20),
            (1, 1, 9, 9),
            (0, 2, 0, 0),
            # An RPN counts its negatives too.
            (512, 2, 512, 512),
            (12, 2, 12, 12),
        ],
    )
    def test_by_hand(self, positives, images, sampled, expected):
        numbers = [torch.tensor(float(number)) for number in (positives, images, sampled)]
        count = soft_class_count(*numbers)
        assert count.shape == () and count == expected
        assert soft_class_count(*numbers, min_positives=0) == positives

    def test_floor_by_hand(self):
        numbers = [torch.tensor(float(number)) for number in (3, 4, 3000)]
        assert soft_class_count(*numbers, min_positives=2.5) == 10


def test_number_without_a_truth_does_not_count():
    # A box of width 0 has the logarithm of 0 for a target; of the rest, the distance is 1 + 4 + 9.
    student = torch.tensor([[1.0, 2.0, 5.0, 3.0]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0, -math.inf, 0.0]])
    loss = bounded_regression(student, torch.zeros(1, 4), target)
    loss.sum().backward()
    assert loss.tolist() == [14]
    assert student.grad.tolist() == [[2, 4, 0, 6]]
    # The same of the teacher: 13 is better, 15 is not.
    assert bounded_regression(student, torch.tensor([[0.0, 0.0, 9.0, 13.0**0.5]]), target).tolist() == [14]
    assert bounded_regression(student, torch.tensor([[0.0, 0.0, 9.0, 15.0**0.5]]), target).tolist() == [0]
