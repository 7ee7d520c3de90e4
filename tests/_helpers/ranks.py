"""Run a loss as the ranks of a distributed run would, in the threads of one process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn


def terms_on_ranks(loss: nn.Module, batches: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """The terms that each rank computes from its own batch; only sums are exchanged.

    Args:
        loss: Shared by all ranks.
        batches: Arguments of ``forward``, one set per rank.

    Returns:
        The terms of each rank.
    """
    ranks = len(batches)
    meeting = threading.Barrier(ranks, timeout=30)
    own = threading.local()
    shared: list[Tensor] = [torch.empty(0)] * ranks

    def all_reduce(value: Tensor) -> None:
        shared[own.rank] = value.clone()
        meeting.wait()
        value.copy_(torch.stack(shared).sum(0))
        meeting.wait()

    def run(rank: int) -> dict[str, Tensor]:
        own.rank = rank
        return loss(**batches[rank])

    world: dict[str, Any] = {'is_initialized': lambda: True, 'get_world_size': lambda: ranks, 'all_reduce': all_reduce}
    with mock.patch.multiple(distributed, **world), ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))
