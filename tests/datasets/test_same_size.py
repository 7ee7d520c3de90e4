"""Batches of one size: as many as without, full, and of images that share what they must."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler

from mmkd_plugin.datasets.same_size import SameSizeBatchSampler


class Images:
    """A data set of which only the sizes are known."""

    def __init__(self, sizes: Sequence[str]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)


def batches_of(sizes: str, batch_size: int = 2, drop_last: bool = False) -> SameSizeBatchSampler:
    sampler = DefaultSampler(Images(sizes), shuffle=False)
    return SameSizeBatchSampler(sampler, batch_size, lambda dataset: dataset.sizes, drop_last)


@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize('sizes', ['abab', 'aab', 'abc', 'aaaaab', 'abcdefg', 'aabbb', 'ba' * 7 + 'cc'])
@pytest.mark.parametrize('batch_size', [2, 3])
def test_as_many_full_batches_as_without(sizes: str, batch_size: int, drop_last: bool) -> None:
    sampler = batches_of(sizes, batch_size, drop_last)
    found = list(sampler)
    whole, rest = divmod(len(sizes), batch_size)
    assert len(found) == len(sampler) == whole + (rest > 0 and not drop_last)
    assert all(len(batch) == batch_size and len({sizes[index] for index in batch}) == 1 for batch in found)


def test_the_order_is_that_of_the_sampler() -> None:
    assert list(batches_of('abbaab')) == [[1, 2], [0, 3], [4, 4]]


def test_one_size_changes_nothing() -> None:
    assert list(batches_of('aaaaa')) == [[0, 1], [2, 3], [4]]
    assert list(batches_of('aaaaa', drop_last=True)) == [[0, 1], [2, 3]]


def test_another_epoch_takes_what_was_left() -> None:
    sizes = 'abcdefgh'
    sampler = SameSizeBatchSampler(DefaultSampler(Images(sizes), seed=0), 2, lambda dataset: dataset.sizes)
    seen = set()
    for epoch in range(20):
        sampler.sampler.set_epoch(epoch)
        seen |= {index for batch in sampler for index in batch}
    assert seen == set(range(len(sizes)))


def test_an_endless_sampler_never_fills_up() -> None:
    sizes = 'aaab'
    sampler = SameSizeBatchSampler(InfiniteSampler(Images(sizes), seed=0), 2, lambda dataset: dataset.sizes)
    found = [batch for batch, _ in zip(sampler, range(40))]
    assert all(len({sizes[index] for index in batch}) == 1 for batch in found)
    counts = [sum(batch.count(index) for batch in found) for index in range(4)]
    assert max(counts) - min(counts) <= 2
