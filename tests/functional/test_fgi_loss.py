"""The distance of FGI on the lit cells, by hand and by its gradient."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import assert_near
from _helpers.precision import assert_full_precision

from mmkd_plugin.functional import fgi_loss, lit_cells


class TestFGILoss:
    def test_two_levels(self):
        # Level 0: two lit cells, 2 channels of difference 3: 2 * 2 * 9 / (2 * 2) = 9. Level 1: nothing lit, 0.
        student = [torch.full((1, 2, 1, 3), 4.0), torch.ones(1, 2, 1, 1)]
        teacher = [torch.ones(1, 2, 1, 3), torch.zeros(1, 2, 1, 1)]
        masks = [torch.tensor([[[True, False, True]]]), torch.tensor([[[False]]])]
        assert lit_cells(masks).tolist() == [2, 0]
        assert lit_cells(masks).dtype == torch.float32
        assert fgi_loss(student, teacher, masks) == 9
        # Level 1 lit: 2 channels of difference 1: 2 / (2 * 1) = 1.
        masks[1] = ~masks[1]
        assert fgi_loss(student, teacher, masks) == 10

    def test_given_counts_divide(self):
        # 36 / (2 * 6) and 2 / (2 * 1); a count of 0 divides by 1, and of 0.5 by 0.5.
        student = [torch.full((1, 2, 1, 3), 4.0), torch.ones(1, 2, 1, 1)]
        teacher = [torch.ones(1, 2, 1, 3), torch.zeros(1, 2, 1, 1)]
        masks = [torch.tensor([[[True, False, True]]]), torch.tensor([[[True]]])]
        assert fgi_loss(student, teacher, masks, torch.tensor([6.0, 0.0])) == 4
        assert fgi_loss(student, teacher, masks, torch.tensor([6.0, 0.5])) == 5

    def test_the_teacher_gets_no_gradient(self):
        student, teacher = (torch.randn(1, 2, 1, 2, requires_grad=True) for _ in range(2))
        fgi_loss([student], [teacher], [torch.tensor([[[True, False]]])]).backward()
        assert_near(student.grad[..., 0], (student - teacher)[..., 0], 1e-6)
        assert student.grad[..., 1].eq(0).all()
        assert teacher.grad is None

    def test_gradient_is_that_of_the_formula(self):
        student, teacher = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        masks = [torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.5]
        student.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: fgi_loss([x], [teacher], masks), student)
        assert torch.autograd.gradgradcheck(lambda x: fgi_loss([x], [teacher], masks), student)

    def test_only_the_features_are_kept(self):
        student, teacher, kept = torch.randn(1, 8, 9, 9, requires_grad=True), torch.randn(1, 8, 9, 9), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            fgi_loss([student], [teacher], [torch.ones(1, 9, 9, dtype=torch.bool)])
        maps = {tensor.data_ptr() for tensor in kept if tensor.numel() == student.numel()}
        assert maps == {student.data_ptr(), teacher.data_ptr()}

    def test_half_precision(self):
        student, teacher = torch.randn(2, 1, 2, 3, 4) * 300
        assert_full_precision(fgi_loss, [student], [teacher], [torch.ones(1, 3, 4, dtype=torch.bool)])

    def test_levels_that_do_not_fit_are_refused(self):
        maps, masks = [torch.zeros(1, 2, 1, 1)] * 2, [torch.tensor([[[True]]])] * 2
        with pytest.raises(ValueError) as error:
            fgi_loss(maps, maps[:1], masks)
        assert str(error.value) == 'FGI got 2 levels of the student and 1 of the teacher; match them by stride.'
        with pytest.raises(ValueError, match=r'student gives \(1, 2, 1, 1\) and the teacher \(1, 3, 1, 1\)'):
            fgi_loss(maps, [maps[0], torch.zeros(1, 3, 1, 1)], masks)
