"""Two processes train one student: no unused parameters, equal weights, a plain checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from _helpers import tiny_seg
from _helpers.tiny import retinanet
from mmengine.registry import MODELS

SCRIPT = Path(__file__).parents[1] / '_helpers' / 'distributed_run.py'


def run(tmp_path: Path, *options: str) -> list[dict]:
    """Train on two ranks and return the parameters that each ends with."""
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc_per_node=2',
        str(SCRIPT),
        str(tmp_path),
        *options,
    ]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return [torch.load(tmp_path / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]


def test_two_ranks_end_with_the_same_student(tmp_path):
    first, second = run(tmp_path)
    assert any(key.startswith('distiller.connectors') for key in first)
    assert not any('teacher.' in key for key in first)
    assert all(torch.equal(first[key], second[key]) for key in first)
    state = torch.load(tmp_path / 'run' / 'iter_3.pth', weights_only=True)['state_dict']
    MODELS.build(retinanet()).load_state_dict(state, strict=True)


def test_two_ranks_end_with_the_same_discriminator(tmp_path):
    first, second = run(tmp_path, 'holistic')
    name = 'distiller.distill_losses.loss_seg.discriminator.last.weight'
    assert name in first
    assert all(torch.equal(first[key], second[key]) for key in first)
    checkpoint = torch.load(tmp_path / 'run' / 'iter_3.pth', weights_only=True)
    MODELS.build(tiny_seg.pspnet()).load_state_dict(checkpoint['state_dict'], strict=True)
