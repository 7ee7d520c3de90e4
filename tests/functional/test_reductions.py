"""Sums with a gradient written by hand equal those that autograd takes, in both orders."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from _helpers.golden import assert_near
from _helpers.memory import PeakMemory
from torch import Tensor

from mmkd_plugin.functional import reductions as module
from mmkd_plugin.functional.reductions import (
    Reductions,
    attention_pool,
    blocks,
    reductions,
    sizes,
    squared_distances,
)


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


@pytest.fixture(params=[2**18, 40, 11, 1], ids=lambda values: f'{values} values a block')
def block(request, monkeypatch):
    """Blocks of all, of some images, of some channels and of a single channel."""
    monkeypatch.setattr(module, 'BLOCK', request.param)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)


@pytest.mark.usefixtures('block')
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

    @pytest.mark.parametrize('wanted', [names for count in (1, 2) for names in combinations(Reductions._fields, count)])
    def test_some_of_the_sums(self, shape, wanted):
        student, teacher = maps(*shape)
        student.requires_grad_()
        weight = torch.rand(shape[:2], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        ours, expected = reductions(student, teacher, weight, wanted), plainly(student, teacher, weight)
        assert {name for name in Reductions._fields if getattr(ours, name) is not None} == set(wanted)
        assert all(getattr(ours, name).shape == getattr(expected, name).shape for name in wanted)
        both = [sum(getattr(side, name).square().sum() for name in wanted) for side in (ours, expected)]
        assert_near(*both, 1e-12)
        found, wanted = (torch.autograd.grad(side, student, retain_graph=True)[0] for side in both)
        assert_near(found, wanted, 1e-12)

    def test_sums_without_a_gradient_leave_the_others_alone(self, shape):
        student, teacher = maps(*shape)
        student.requires_grad_()
        weight = torch.ones(shape[:2], dtype=torch.float64)
        for name in Reductions._fields:
            ours, expected = reductions(student, teacher, weight), plainly(student, teacher, weight)
            found, wanted = (
                torch.autograd.grad(getattr(side, name).square().sum(), student)[0] for side in (ours, expected)
            )
            assert_near(found, wanted, 1e-12, name=name)

    def test_sizes(self, shape):
        (feature,) = maps(*shape, count=1)
        by_cell, by_channel = sizes(feature)
        assert_near(by_cell, feature.abs().mean(1), 1e-12)
        assert_near(by_channel, feature.abs().mean((2, 3)), 1e-12)

    def test_distances(self, shape):
        student, teacher = maps(*shape)
        student.requires_grad_()
        ours, expected = squared_distances(student, teacher), ((student - teacher) ** 2).sum(1)
        assert_near(ours, expected, 1e-12)
        found, wanted = (torch.autograd.grad(side.square().sum(), student)[0] for side in (ours, expected))
        assert_near(found, wanted, 1e-12)

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


@pytest.mark.parametrize('shape', [(2, 2, 2, 3), (1, 1, 1, 1), (3, 2, 1, 4)], ids=str)
class TestBothOrders:
    @pytest.mark.parametrize('wanted', [Reductions._fields, *((name,) for name in Reductions._fields)])
    def test_reductions(self, shape, wanted):
        student, teacher = maps(*shape)
        weight = torch.rand(shape[:2], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        student.requires_grad_()

        def found(x):
            return tuple(item for item in reductions(x, teacher, weight, wanted) if item is not None)

        assert torch.autograd.gradcheck(found, student)
        assert torch.autograd.gradgradcheck(found, student)

    def test_pool(self, shape):
        (feature,) = maps(*shape, count=1)
        key, bias = torch.linspace(-1, 1, shape[1], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        inputs = [item.requires_grad_() for item in (feature, key, bias)]
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


@pytest.mark.parametrize(
    ('shape', 'count'),
    # 12 values at a time: all of them, three images, one image, two channels, and a channel that is larger.
    [((2, 2, 3), 1), ((7, 2, 2), 3), ((3, 3, 4), 3), ((2, 5, 6), 6), ((2, 2, 13), 4)],
)
def test_blocks_cover_a_map_once(shape, count, monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', 12)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    feature = torch.zeros(shape)
    found = blocks(feature)
    assert len(found) == count
    for each in found:
        assert 0 < feature[each].numel() <= max(12, shape[2])
        feature[each] += 1
    assert feature.eq(1).all()


def test_threads_share_a_block(monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', 6)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    assert len(blocks(torch.zeros(4, 2, 3))) == 2


def test_other_devices_and_compilers_take_a_map_at_once(monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', 1)
    everything = [(slice(None), slice(None))]
    assert blocks(torch.zeros(4, 2, 3, device='meta')) == everything
    monkeypatch.setattr(module, 'is_compiling', lambda: True)
    assert blocks(torch.zeros(4, 2, 3)) == everything


def test_scratch_memory_is_a_block(monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', 1000)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    student, teacher = torch.randn(2, 64, 25, 25, requires_grad=True), torch.randn(2, 64, 25, 25)
    feature = 4 * student.numel()
    with PeakMemory() as memory:
        found = reductions(student, teacher, torch.ones(2, 64))
    # Three sums of 64 channels and two of 625 cells for both images, some of them twice for a moment.
    assert memory.peak < 40_000 < feature / 4
    with PeakMemory() as memory:
        torch.autograd.grad(torch.stack([item.sum() for item in found]).sum(), student)
    assert memory.peak < feature + 40_000
