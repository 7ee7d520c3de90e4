"""The mini pairs on two processes of the host, by the scripts and the bases of the engines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini

ROOT = Path(__file__).parents[2]
BASES = ROOT / 'configs' / '_base_' / 'engines'
PAIRS = [
    ('fgd_retina_r34_to_r18', ['fsdp', 'checkpointing']),
    ('fgd_retina_r34_to_r18', ['deepspeed']),
    ('fgd_chen_faster-rcnn_r34_to_r18', ['ddp', 'checkpointing']),
    ('fgd_chen_faster-rcnn_r34_to_r18', ['deepspeed']),
    ('pixel_pair_holistic_pspnet_r34_to_r18', ['fsdp']),
    ('pixel_pair_holistic_pspnet_r34_to_r18', ['deepspeed']),
]


def written(folder: Path, pair: str, engines: list[str], data: Path) -> Path:
    """A config of a mini pair under some engines, on a few images and for two steps."""
    bases = [
        str(ROOT / f'configs/coco_mini/{pair}.py'),
        *(f'mmkd_plugin::_base_/engines/{name}.py' for name in engines),
    ]
    options = dict(max_iters=2, val_interval=2)
    small = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root=f'{data}/'))
    lines = [f'_base_ = {bases!r}', f'train_cfg = dict(**{options!r})', f'train_dataloader = {small!r}']
    lines += [f'val_dataloader = {small!r}', f'test_dataloader = {small!r}']
    if 'pspnet' not in pair:
        annotations = str(data / 'annotations/instances_val.json')
        lines += [f'{split}_evaluator = dict(ann_file={annotations!r})' for split in ('val', 'test')]
    lines += ['default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))']
    path = folder / 'config.py'
    path.write_text('\n'.join(lines) + '\n')
    return path


def launched(folder: Path, script: str, *arguments: str) -> str:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PORT': port,
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '-1',
    }
    command = [str(ROOT / 'tools' / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize('name', sorted(path.stem for path in BASES.glob('*.py')))
def test_bases_stand_beside_those_of_methods(name: str) -> None:
    """MMEngine takes a key from one base alone, so none of them names a runner."""
    recipes = ('_base_/fgd/one_stage.py', '_base_/structured_seg/pixel_pair_holistic.py')
    keys = set(Config.fromfile(BASES / f'{name}.py').to_dict())
    for recipe in recipes:
        assert keys and not keys & set(Config.fromfile(ROOT / 'configs' / recipe).to_dict())


@pytest.mark.slow
@pytest.mark.parametrize(('pair', 'engines'), PAIRS)
def test_mini_pair(tmp_path: Path, pair: str, engines: list[str]) -> None:
    if 'deepspeed' in engines:
        pytest.importorskip('deepspeed')
    data = ensure_coco_mini(tmp_path / 'coco_mini', MiniSettings(train=8, val=3, size=64), report=lambda _: None)
    path = written(tmp_path, pair, engines, Path(data))
    log = launched(tmp_path, 'dist_train.sh', 'config.py', '2', '--work-dir', 'run')
    assert 'Distributed launcher: pytorch' in log and 'distill.loss' in log
    checkpoint = load_checkpoint_file(str(tmp_path / 'run' / 'iter_2.pth'))
    cfg = Config.fromfile(path)
    MODELS.build({**cfg.model, '_scope_': cfg.default_scope}).load_state_dict(checkpoint['state_dict'], strict=True)
    assert checkpoint['distill_state']
    tested = launched(tmp_path, 'dist_test.sh', 'config.py', 'run/iter_2.pth', '2', '--work-dir', 'tested')
    # A student of two steps finds nothing, so that detectors have no score.
    assert '(test) [1/1]' in tested and ('mIoU' in tested or 'Evaluating bbox' in tested)
