"""Batches of images that need no padding but their own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from torch.utils.data import BatchSampler


class SameSizeBatchSampler:
    """Batches of images of one size, as MMDetection's ``AspectRatioBatchSampler`` makes them of one orientation.

    An epoch has as many batches as without it, in every process. Images that find no other of their size before it ends
    are repeated to fill the last batches, as many as there are; the others wait for another epoch.

    Args:
        sampler: Gives the indices of one process; it knows its data set.
        batch_size: Images in a batch.
        sizes: Called with the data set, gives what images of a batch must share, by index. Where it is the same for all
            images, the batches are those of torch's ``BatchSampler``.
        drop_last: Whether a last batch for which there are too few images is left out.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        sizes: Callable[[Any], Sequence[Hashable]],
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sizes = sizes(sampler.dataset)
        self._plain = BatchSampler(sampler, batch_size, drop_last)

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[list[int]]:
        if len(set(self.sizes)) == 1:
            yield from self._plain
            return
        waiting: dict[Hashable, list[int]] = {}
        done = 0
        for index in self.sampler:
            size = self.sizes[index]
            batch = waiting.setdefault(size, [])
            batch.append(index)
            if len(batch) == self.batch_size:
                # What comes next of this size has waited least.
                del waiting[size]
                done += 1
                yield batch
        for batch in list(waiting.values())[: len(self) - done]:
            yield (batch * self.batch_size)[: self.batch_size]
