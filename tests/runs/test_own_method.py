"""Methods and losses of a package that the plugin does not know, under the stock tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import mmdet
import mmseg
import pytest

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / 'examples/own_method'
SHORT = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2')
SEGMENTATION_PACKAGE = '''
    """Label maps of one's own."""

    from mmengine.registry import MODELS
    from torch import nn


    @MODELS.register_module()
    class LabelledL2(nn.Module):
        """Squared difference of logits where the label map counts."""

        def forward(self, student, teacher, label):
            mask = nn.functional.interpolate((label != 255)[:, None].float(), student.shape[2:])
            return ((student - teacher) ** 2 * mask).mean()
'''
SEGMENTATION_CONFIG = """
_base_ = 'mmkd_plugin::coco_mini/pspnet_r18.py'
custom_imports = dict(imports=['my_losses'])
runner_type = 'mmkd_plugin.DistillRunner'
distill = dict(
    teacher='mmkd_plugin::coco_mini/pspnet_r34.py',
    teacher_ckpt='mmkd_plugin::coco_mini/pspnet_r34.pth',
    methods=dict(mine=dict(type='Feature', tap='decode_head.conv_seg', loss=dict(type='my_losses.LabelledL2'))))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A user's folder with a small data set, a copy of the example and a package for segmentation."""
    path = tmp_path_factory.mktemp('user')
    ensure_coco_mini(path / 'data' / 'coco_mini', MiniSettings(train=8, val=4), report=lambda _: None)
    shutil.copytree(EXAMPLE, path / 'example')
    (path / 'my_losses.py').write_text(textwrap.dedent(SEGMENTATION_PACKAGE))
    (path / 'segmentation.py').write_text(SEGMENTATION_CONFIG)
    return path


def train(folder: Path, package: Any, config: str, *options: str) -> subprocess.CompletedProcess:
    """Run a package's own train.py."""
    tool = Path(str(package.__file__)).parent / '.mim/tools/train.py'
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{folder / "example"}:{folder}'}
    command = [sys.executable, str(tool), config, '--cfg-options', *SHORT, *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_example_trains_under_mmdetections_own_tool(folder):
    done = train(folder, mmdet, 'example/retina_r34_to_r18.py', '--work-dir', 'boxes')
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'distill.loss_box_mgd_generated' in output
    assert (folder / 'boxes/iter_2.pth').is_file()


def test_a_mistake_in_its_block_is_one_sentence(folder):
    done = train(folder, mmdet, 'example/retina_r34_to_r18.py', 'distill.methods.box_mgd.mask_ratio=2')
    message = '"distill.methods.box_mgd.mask_ratio" is 2; it must be a number from 0 to 1.'
    assert done.returncode != 0 and message in done.stdout + done.stderr


def test_a_loss_with_labels_trains_under_mmsegmentations_own_tool(folder):
    done = train(folder, mmseg, 'segmentation.py', '--work-dir', 'maps')
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'distill.loss_mine' in output


def test_it_is_short_and_outside_the_package():
    lines = [len(path.read_text().splitlines()) for path in EXAMPLE.rglob('*.py')]
    assert sum(lines) <= 90
    assert not any('box_mgd' in path.read_text() for path in (ROOT / 'mmkd_plugin').rglob('*.py'))
