"""Run a loss as the ranks of a distributed run would, in threads of one process; or a whole run in two processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from _helpers.two_processes import run_in_two
from mmkd_plugin.methods import DistillLoss


def terms_on_ranks(loss: DistillLoss, batches: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """The terms that each rank computes from its own batch; only means are exchanged.

    Args:
        loss: Shared by all ranks.
        batches: Arguments of ``terms``, one set per rank.

    Returns:
        The terms of each rank.
    """
    ranks = len(batches)
    meeting = threading.Barrier(ranks, timeout=120)
    own = threading.local()
    shared: list[Tensor] = [torch.empty(0)] * ranks

    def all_reduce(value: Tensor, op: str) -> None:
        assert op == 'mean'
        shared[own.rank] = value.clone()
        meeting.wait()
        value.copy_(torch.stack(shared).mean(0))
        meeting.wait()

    def run(rank: int) -> dict[str, Tensor]:
        own.rank = rank
        return loss.terms(**batches[rank])

    with mock.patch('mmkd_plugin.utilities.distributed.all_reduce', all_reduce), ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))


def train_on_two_ranks(folder: Path, *arguments: str) -> list[dict[str, Tensor]]:
    """Run ``distributed_run.py`` in two processes.

    Args:
        folder: Where the run and its results go.
        *arguments: Further arguments of the script.

    Returns:
        What each rank ends with.
    """
    run_in_two('distributed_run.py', folder, *arguments)
    return [torch.load(folder / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]
