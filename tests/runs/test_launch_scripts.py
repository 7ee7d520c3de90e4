"""The scripts that start several processes take OpenMMLab's arguments in OpenMMLab's order."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _helpers.on_disk import segmentor
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini

TOOLS = Path(__file__).parents[2] / 'tools'
WITHOUT_GPU = """
import torch
from _helpers.distributed_run import HostDDP
torch.cuda.set_device = lambda device: None
"""
"""MMEngine chooses a GPU for each process and hands it to torch, whether there is one or not."""


def started(folder: Path, script: str, *arguments: str, **variables: str) -> list[str]:
    """Start a script where ``python`` and ``srun`` only say what they are called with; gives their arguments."""
    for name in ('python', 'srun'):
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        (folder / name).chmod(0o755)
    clean = {key: value for key, value in os.environ.items() if key not in ('GPUS', 'GPUS_PER_NODE', 'PORT', 'NNODES')}
    environment = {**clean, 'PATH': f'{folder}:{os.environ["PATH"]}', **variables}
    done = subprocess.run([TOOLS / script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ('script', 'given', 'passed'),
    [
        ('dist_train.sh', ['a.py', '4'], ['train.py', 'a.py', '--launcher', 'pytorch']),
        ('dist_test.sh', ['a.py', 'a.pth', '4'], ['test.py', 'a.py', 'a.pth', '--launcher', 'pytorch']),
    ],
)
def test_processes_of_one_machine(tmp_path: Path, script: str, given: list[str], passed: list[str]) -> None:
    command = started(tmp_path, script, *given, '--cfg-options', 'x=a b', PORT='29411')
    assert command[:3] == ['python', '-m', 'torch.distributed.run']
    assert {'--nproc_per_node=4', '--nnodes=1', '--master_port=29411'} <= set(command)
    tail = command[-len(passed) - 2 :]
    assert [Path(tail[0]).name, *tail[1:]] == [*passed, '--cfg-options', 'x=a b']
    assert Path(tail[0]).resolve() == TOOLS / passed[0]


@pytest.mark.parametrize(
    ('script', 'given', 'passed'),
    [
        ('slurm_train.sh', ['a.py', 'out'], ['train.py', 'a.py', '--work-dir', 'out', '--launcher', 'slurm']),
        ('slurm_test.sh', ['a.py', 'a.pth'], ['test.py', 'a.py', 'a.pth', '--launcher', 'slurm']),
    ],
)
def test_processes_under_slurm(tmp_path: Path, script: str, given: list[str], passed: list[str]) -> None:
    command = started(tmp_path, script, 'part', 'job', *given, '--cfg-options', 'x=a b', GPUS='4', SRUN_ARGS='-q now')
    assert command[:4] == ['srun', '-p', 'part', '--job-name=job']
    assert {'--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4', '-q', 'now'} <= set(command)
    tail = command[-len(passed) - 4 :]
    assert tail[:2] == ['python', '-u']
    assert [Path(tail[2]).name, *tail[3:]] == [*passed, '--cfg-options', 'x=a b']


def test_two_processes_test_one_checkpoint(tmp_path: Path) -> None:
    data = ensure_coco_mini(tmp_path / 'coco_mini', MiniSettings(train=1, val=3, size=64), report=lambda _: None)
    (tmp_path / 'without_gpu.py').write_text(WITHOUT_GPU)
    values = segmentor(data)
    values.update(env_cfg=dict(dist_cfg=dict(backend='gloo')), custom_imports=dict(imports=['without_gpu']))
    values['model_wrapper_cfg'] = dict(type='HostDDP')
    Config({**values, 'test_cfg': dict(type='TestLoop')}).dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=MODELS.build(values['model']).state_dict()), tmp_path / 'model.pth')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': f'{tmp_path}:{TOOLS.parent / "tests"}',
        'PORT': port,
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '-1',
    }
    command = [str(TOOLS / 'dist_test.sh'), 'config.py', 'model.pth', '2', '--work-dir', 'tested']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr
    assert 'Distributed launcher: pytorch' in output
    # Three images on two processes.
    assert 'Epoch(test) [2/2]' in output
    assert 'mIoU' in output
