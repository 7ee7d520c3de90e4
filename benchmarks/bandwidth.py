"""Measure what an all-reduce sends per second, for "python -m benchmarks.projection"; run it under torchrun.

    torchrun --nproc_per_node 8 -m benchmarks.bandwidth --numbers 38000000

Between machines, start it on each of them, with ``--nnodes`` and ``--rdzv_endpoint``.
"""

from __future__ import annotations

import os
import statistics
import time

import torch
from torch import distributed

from mmkd_plugin.cli import CommandParser, plain_errors
from mmkd_plugin.errors import DistillError

WARM_UP = 3


def gigabytes_per_second(numbers: int, rounds: int, device: torch.device) -> list[float]:
    """What each process sends in a second of an all-reduce, ``2 (N - 1) / N`` of the bytes in a ring.

    Args:
        numbers: How many in single precision, as many as a run has gradients.
        rounds: All-reduces that are timed, one by one.
        device: Where they lie.
    """
    count = distributed.get_world_size()
    sent = 2 * (count - 1) / count * 4 * numbers
    gradients = torch.ones(numbers, device=device)
    found = []
    for index in range(WARM_UP + rounds):
        distributed.barrier()
        started = time.perf_counter()
        distributed.all_reduce(gradients, op=distributed.ReduceOp.MAX)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        if index >= WARM_UP:
            found.append(sent / (time.perf_counter() - started) / 1e9)
    return found


def main() -> None:
    """Measure and print."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--numbers', type=int, default=38_000_000, help='gradients of a run; 38,000,000 by default')
    parser.add_argument('--rounds', type=int, default=9, help='9 by default')
    args = parser.parse_args()
    with plain_errors():
        if 'RANK' not in os.environ:
            raise DistillError('Start it as "torchrun --nproc_per_node <processes> -m benchmarks.bandwidth".')
        gpu = torch.cuda.is_available()
        device = torch.device('cuda', int(os.environ['LOCAL_RANK'])) if gpu else torch.device('cpu')
        if gpu:
            torch.cuda.set_device(device)
        distributed.init_process_group('nccl' if gpu else 'gloo')
        found = gigabytes_per_second(args.numbers, args.rounds, device)
        if distributed.get_rank() == 0:
            print(
                f'{distributed.get_world_size()} processes on {distributed.get_backend()}: median '
                f'{statistics.median(found):.2f} GB/s, {min(found):.2f} to {max(found):.2f} over {len(found)} rounds'
            )
        distributed.destroy_process_group()


if __name__ == '__main__':
    main()
