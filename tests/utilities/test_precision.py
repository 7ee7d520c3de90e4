"""Half precision and autocast end at the border of a function."""

from __future__ import annotations

import pytest
import torch

from mmkd_plugin.utilities.precision import full_precision


@full_precision
def seen(*args, **kwargs):
    """What arrives."""
    return args, kwargs


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_wherever_it_lies(dtype):
    half = torch.ones(2, dtype=dtype)
    (first, nested), keywords = seen(half, [half, (half, {'deep': half})], name=half)
    found = [first, nested[0], nested[1][0], nested[1][1]['deep'], keywords['name']]
    assert [item.dtype for item in found] == [torch.float32] * 5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.int64, torch.bool])
def test_other_tensors_are_passed_on(dtype):
    tensor = torch.ones(2, dtype=dtype)
    (found,), _ = seen(tensor)
    assert found is tensor


def test_other_arguments_are_passed_on():
    option = object()
    assert seen(option, 3, text='x') == ((option, 3), {'text': 'x'})


def test_autocast_is_off_inside_and_on_again_outside():
    product = full_precision(torch.matmul)
    matrix = torch.ones(2, 2)
    with torch.autocast('cpu', torch.bfloat16):
        assert product(matrix, matrix).dtype == torch.float32
        assert torch.matmul(matrix, matrix).dtype == torch.bfloat16


def test_gradients_come_back_in_the_precision_of_the_caller():
    half = torch.full((2,), 3.0, dtype=torch.float16, requires_grad=True)
    # 60000 * 3 overflows float16; the gradient, 60000, does not.
    full_precision(lambda x: (60000 * x).sum())(half).backward()
    assert half.grad.dtype == torch.float16
    assert half.grad.tolist() == [60000, 60000]
