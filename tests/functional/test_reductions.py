"""Sums with a gradient written by hand equal those that autograd takes, in both orders."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import assert_near
from torch import Tensor

from mmkd_plugin.functional.reductions import Reductions, attention_pool, reductions, sizes


def maps(*shape, count=2, seed=1):
    """Feature maps in double precision."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()


def plainly(student: Tensor, teacher: Tensor, weight: Tensor) -> Reductions:
    """The same sums, one by one."""
    difference = student - teacher
    energy = (weight[..., None, None] * difference**2).sum(1)
    of_size = student.abs()
    return Reductions(
        of_size.mean(1), of_size.mean((2, 3)), energy, difference.mean((2, 3)), (difference**2).mean((2, 3))
    )


def pooled_plainly(feature: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    products = torch.einsum('c,nchw->nhw', key, feature) + bias
    weight = products.flatten(1).softmax(1).view_as(products)
    return torch.einsum('nhw,nchw->nc', weight, feature)


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (1, 1, 1, 1), (3, 2, 1, 7)], ids=str)
class TestReductions:
    def test_sums_and_gradient(self, shape):
        student, teacher = maps(*shape)
        student.requires_grad_()
        weight = torch.rand(shape[:2], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        ours, expected = reductions(student, teacher, weight), plainly(student, teacher, weight)
        for name, found, wanted in zip(Reductions._fields, ours, expected):
            assert found.shape == wanted.shape, name
            assert_near(found, wanted, 1e-12)
            mixed = torch.arange(1.0, found.numel() + 1, dtype=torch.float64).view_as(found)
            (one,) = torch.autograd.grad((found * mixed).sum(), student, retain_graph=True)
            (other,) = torch.autograd.grad((wanted * mixed).sum(), student, retain_graph=True)
            assert_near(one, other, 1e-12)

    def test_both_orders(self, shape):
        student, teacher = maps(*shape)
        weight = torch.rand(shape[:2], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        student.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: tuple(reductions(x, teacher, weight)), student)
        assert torch.autograd.gradgradcheck(lambda x: tuple(reductions(x, teacher, weight)), student)

    def test_pool(self, shape):
        (feature,) = maps(*shape, count=1)
        key, bias = torch.linspace(-1, 1, shape[1], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        inputs = [item.requires_grad_() for item in (feature, key, bias)]
        ours, expected = attention_pool(*inputs), pooled_plainly(*inputs)
        assert_near(ours, expected, 1e-12)
        found = torch.autograd.grad(ours.square().sum(), inputs, retain_graph=True)
        wanted = torch.autograd.grad(expected.square().sum(), inputs)
        for one, other in zip(found[:2], wanted):
            assert_near(one, other, 1e-10, floor=1.0)
        assert found[2].tolist() == [0]
        assert torch.autograd.gradcheck(attention_pool, inputs)
        assert torch.autograd.gradgradcheck(attention_pool, inputs)


def test_sums_of_what_is_not_contiguous():
    student, teacher = (feature.contiguous(memory_format=torch.channels_last) for feature in maps(2, 3, 4, 5))
    weight = torch.ones(2, 3, dtype=torch.float64)
    for found, wanted in zip(reductions(student, teacher, weight), plainly(student, teacher, weight)):
        assert_near(found, wanted, 1e-12)


def test_only_the_two_features_are_kept():
    student, teacher = torch.randn(2, 8, 16, 16, requires_grad=True), torch.randn(2, 8, 16, 16)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = reductions(student, teacher, torch.ones(2, 8))
    maps_kept = [tensor for tensor in kept if tensor.numel() == student.numel()]
    assert {tensor.data_ptr() for tensor in maps_kept} == {student.data_ptr(), teacher.data_ptr()}
    assert all(item.requires_grad for item in found)


def test_teacher_and_weight_get_no_gradient():
    student, teacher = maps(1, 2, 3, 3)
    weight = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    student.requires_grad_(), teacher.requires_grad_()
    sum(item.sum() for item in reductions(student, teacher, weight)).backward()
    assert student.grad.any()
    assert teacher.grad is None
    assert weight.grad is None


def test_sizes_are_means_over_channels_and_cells():
    feature = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]]])
    by_cell, by_channel = sizes(feature)
    assert by_cell.tolist() == [[[2.0, 1.0]]]
    assert by_channel.tolist() == [[1.5, 1.5]]
