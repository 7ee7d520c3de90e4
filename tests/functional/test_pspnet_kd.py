"""The formulas on PSPNet's logits against recorded numbers and arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.precision import assert_full_precision

from mmkd_plugin.functional import aux_smooth_l1_loss, logits_kl_loss

LOG2, LOG3 = math.log(2), math.log(3)


class TestLogitsKL:
    def test_golden(self):
        data = read_golden('pspnet_kd_voc21')
        student = data['student_logits'].requires_grad_()
        options = {'temperature': data['temperature'].item()}
        loss = logits_kl_loss(student, data['teacher_logits'], **options)
        loss.backward()
        assert_near(loss, data['out_kl_per_pixel'], 1e-9)
        assert_near(student.grad, data['grad_student_kl_per_pixel'], 1e-9)
        valid = data['label'] != 255
        loss = logits_kl_loss(student, data['teacher_logits'], valid=valid, **options)
        assert_near(loss, data['out_kl_per_pixel_valid_only'], 1e-9)

    def test_by_hand(self):
        # At T = log 3 / log 2 the teacher's odds of 3 become 2: T^2 times (5/3 log 2 - log 3).
        temperature = LOG3 / LOG2
        teacher = torch.tensor([LOG3, 0.0]).view(1, 2, 1, 1).expand(2, 2, 1, 3)
        loss = logits_kl_loss(torch.zeros(2, 2, 1, 3), teacher, temperature=temperature)
        assert_near(loss, torch.tensor(temperature**2 * (5 / 3 * LOG2 - LOG3)), 1e-5)

    def test_default_temperature(self):
        # Odds of 3^1.9 become 3.
        teacher = torch.tensor([1.9 * LOG3, 0.0]).view(1, 2, 1, 1)
        loss = logits_kl_loss(torch.zeros(1, 2, 1, 1), teacher)
        assert_near(loss, torch.tensor(1.9**2 * (3 / 4 * LOG3 - LOG2)), 1e-5)

    def test_count_divides_what_is_valid(self):
        # Each of six pixels has 3/4 log 3 - log 2; three count.
        teacher = torch.tensor([LOG3, 0.0]).view(1, 2, 1, 1).expand(2, 2, 1, 3)
        student, one = torch.zeros(2, 2, 1, 3), 3 / 4 * LOG3 - LOG2
        valid = torch.tensor([[[True, False, True]], [[False, True, False]]])
        for options, expected in (
            ({}, one),
            ({'count': torch.tensor(12.0)}, one / 2),
            ({'valid': valid}, one),
            ({'valid': valid, 'count': torch.tensor(12.0)}, one / 4),
            ({'valid': torch.zeros_like(valid)}, 0.0),
            ({'count': torch.tensor(0.0)}, 6 * one),
        ):
            loss = logits_kl_loss(student, teacher, temperature=1.0, **options)
            assert_near(loss, torch.tensor(expected), 1e-6)

    def test_half_precision(self):
        # Squared temperatures and sums over pixels overflow float16.
        assert_full_precision(logits_kl_loss, *torch.randn(2, 1, 3, 40, 40) * 100, temperature=20.0)

    def test_different_logits_are_refused(self):
        with pytest.raises(ValueError, match=r'\(1, 5, 3, 3\) and the teacher \(1, 5, 3, 4\)'):
            logits_kl_loss(torch.zeros(1, 5, 3, 3), torch.zeros(1, 5, 3, 4))


class TestAuxSmoothL1:
    def test_golden(self):
        data = read_golden('pspnet_kd_voc21')
        student = data['student_aux'].requires_grad_()
        loss = aux_smooth_l1_loss(student, data['teacher_aux'])
        loss.backward()
        assert_near(loss, data['out_aux_smoothl1'], 1e-9)
        assert_near(student.grad, data['grad_aux_smoothl1'], 1e-9)

    def test_by_hand(self):
        # 3 - 1/2, 0.5^2 / 2 and twice 0, over four elements.
        student = torch.tensor([[[[3.0, 0.0]], [[-0.5, 0.0]]]])
        assert aux_smooth_l1_loss(student, torch.zeros(1, 2, 1, 2)) == 0.65625

    def test_the_teacher_gets_no_gradient(self):
        teacher = torch.ones(1, 2, 1, 2, requires_grad=True)
        loss = aux_smooth_l1_loss(torch.zeros(1, 2, 1, 2, requires_grad=True), teacher)
        loss.backward()
        assert teacher.grad is None

    @pytest.mark.parametrize('block', [1, 20, 2**18])
    def test_gradients_are_those_of_torch(self, monkeypatch, block):
        monkeypatch.setattr('mmkd_plugin.functional.reductions.BLOCK', block)
        student, teacher = 2 * torch.randn(
            2, 2, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        student.requires_grad_()
        expected = torch.nn.functional.smooth_l1_loss(student, teacher)
        assert_near(aux_smooth_l1_loss(student, teacher), expected.detach(), 1e-12)
        checks = torch.autograd.gradcheck, torch.autograd.gradgradcheck
        assert all(check(aux_smooth_l1_loss, (student, teacher)) for check in checks)

    def test_half_precision(self):
        assert_full_precision(aux_smooth_l1_loss, *torch.randn(2, 1, 3, 4, 4) * 30)

    def test_different_logits_are_refused(self):
        with pytest.raises(ValueError, match=r'\(1, 5, 3, 3\) and the teacher \(1, 4, 3, 3\)'):
            aux_smooth_l1_loss(torch.zeros(1, 5, 3, 3), torch.zeros(1, 4, 3, 3))
