"""The mean over ranks, in two processes."""

from __future__ import annotations

import subprocess
import sys

import torch

from mmkd_plugin.utilities.distributed import mean_over_ranks

PROGRAM = """
import sys
import torch
from torch import distributed
from mmkd_plugin.utilities.distributed import mean_over_ranks

rank = int(sys.argv[1])
distributed.init_process_group('gloo', init_method='file://' + sys.argv[2], rank=rank, world_size=2)
counts = torch.tensor([1.0 + rank, 10.0])
print(mean_over_ranks(counts).tolist(), counts.tolist())
distributed.destroy_process_group()
"""


def test_two_ranks(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, '-c', PROGRAM, str(rank), str(tmp_path / 'meeting')], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=300)[0].decode().split('\n')[0] for rank in ranks]
    assert outputs == ['[1.5, 10.0] [1.0, 10.0]', '[1.5, 10.0] [2.0, 10.0]']


def test_nothing_distributed():
    counts = torch.tensor([3.0])
    mean = mean_over_ranks(counts)
    assert mean.tolist() == [3]
    assert mean is not counts
