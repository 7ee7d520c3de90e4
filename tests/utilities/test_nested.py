"""Tensors in nested arguments."""

from __future__ import annotations

import torch

from mmkd_plugin.utilities.nested import map_tensors, tensors_of

ONE, TWO, THREE = torch.tensor(1), torch.tensor(2), torch.tensor(3)
NESTED = [ONE, {'a': (TWO, 'text'), 'b': None}, [[THREE]]]


def test_tensors_are_found_in_order():
    assert list(tensors_of(NESTED)) == [ONE, TWO, THREE]
    assert list(tensors_of('text')) == []


def test_only_tensors_are_mapped_and_containers_keep_their_kind():
    expected = [2, {'a': (3, 'text'), 'b': None}, [[4]]]
    assert map_tensors(lambda x: int(x) + 1, NESTED) == expected
    assert isinstance(map_tensors(int, (ONE,)), tuple)


def test_containers_of_other_kinds_stay_as_they_are():
    shape = torch.Size([2, 3])
    assert map_tensors(int, shape) is shape
