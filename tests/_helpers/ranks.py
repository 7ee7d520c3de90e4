"""Run a loss on several ranks of one machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, distributed, nn


def terms_on_ranks(loss: nn.Module, batches: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """The terms that each rank computes from its own batch.

    Args:
        loss: Copied to every rank.
        batches: Arguments of ``forward``, one set per rank.

    Returns:
        The terms of each rank.
    """
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (folder, loss, batches), nprocs=len(batches))
        return [torch.load(Path(folder) / f'{rank}.pt') for rank in range(len(batches))]


def _rank(rank: int, folder: str, loss: nn.Module, batches: list[dict[str, Any]]) -> None:
    """One process."""
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=len(batches))
    torch.save(loss(**batches[rank]), Path(folder) / f'{rank}.pt')
    distributed.destroy_process_group()
