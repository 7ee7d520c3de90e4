"""Three lines under the stock tools of both packages: train, be killed, resume, test without the teacher, load."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from _helpers.tiny import retinanet
from _helpers.tiny_seg import pspnet
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.datasets.segmentation import CocoMiniSegDataset
from mmkd_plugin.registry import MODELS
from runs.test_stock_tools import call

pytestmark = pytest.mark.slow

CLASSES = len(CocoMiniSegDataset.METAINFO['classes'])
PAIRS = {
    'mmdet': ('coco_mini/retina_r18.py', 'fgd/one_stage.py', retinanet(width=24), 'distill.loss_fgd_relation'),
    'mmseg': ('coco_mini/pspnet_r18.py', 'structured_seg/pixel.py', pspnet(24, classes=CLASSES), 'distill.loss_pixel'),
}
CONFIG = """
_base_ = ['mmkd_plugin::{student}', 'mmkd_plugin::_base_/{recipe}']
distill = dict(teacher='teacher.py', teacher_ckpt='random')
"""
EVERY_STEP = 'default_hooks.checkpoint.interval=1'
WAIT = 300.0


def tools(package: str) -> Path:
    """The package's own, unmodified tools."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / '.mim' / 'tools'


def kill_after_checkpoint(folder: Path, script: Path) -> int:
    """Train until a checkpoint is written, kill the process, and tell the step of the checkpoint."""
    latest = folder / 'run/last_checkpoint'
    command = [sys.executable, str(script), 'student.py', '--work-dir', 'run', '--cfg-options', EVERY_STEP]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    with (folder / 'killed.log').open('w') as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + WAIT
            while not latest.exists() or not latest.read_text().endswith('.pth'):
                assert process.poll() is None, (folder / 'killed.log').read_text()[-3000:]
                assert time.monotonic() < deadline, (folder / 'killed.log').read_text()[-3000:]
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return int(Path(latest.read_text()).stem.split('_')[1])


@pytest.mark.parametrize('package', list(PAIRS))
def test_three_lines_survive_being_killed(package: str, tmp_path: Path) -> None:
    student, recipe, teacher, term = PAIRS[package]
    ensure_coco_mini(tmp_path / 'data' / 'coco_mini', MiniSettings(train=16, val=4), report=lambda _: None)
    (tmp_path / 'student.py').write_text(CONFIG.format(student=student, recipe=recipe))
    (tmp_path / 'stock.py').write_text(f"_base_ = ['mmkd_plugin::{student}']\n")
    Config(dict(default_scope=package, model=teacher)).dump(tmp_path / 'teacher.py')

    reached = kill_after_checkpoint(tmp_path, tools(package) / 'train.py')
    last = reached + 2
    options = ('--cfg-options', EVERY_STEP, f'train_cfg.max_iters={last}', 'train_cfg.val_interval=1000')
    resumed = call(tmp_path, tools(package) / 'train.py', 'student.py', '--work-dir', 'run', '--resume', *options)
    said = resumed.stdout + resumed.stderr
    assert resumed.returncode == 0, said[-3000:]
    assert f'iter: {reached}' in said
    assert term in said or term in (tmp_path / 'killed.log').read_text()

    (tmp_path / 'teacher.py').unlink()
    checkpoint = tmp_path / f'run/iter_{last}.pth'
    for config in ('stock.py', 'student.py'):
        # Two steps leave no detection above the usual threshold, and without one there is no metric.
        every = ('--cfg-options', 'model.test_cfg.score_thr=0.0') if package == 'mmdet' else ()
        tested = call(tmp_path, tools(package) / 'test.py', config, str(checkpoint), '--work-dir', 'tested', *every)
        assert tested.returncode == 0, tested.stderr[-3000:]
        assert ('coco/bbox_mAP' if package == 'mmdet' else 'mIoU') in tested.stdout + tested.stderr

    cfg = Config.fromfile(tmp_path / 'stock.py')
    init_default_scope(package)
    # A checkpoint of MMEngine's own, just written.
    weights = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    load_state_dict(MODELS.build(cfg.model), weights, strict=True)
