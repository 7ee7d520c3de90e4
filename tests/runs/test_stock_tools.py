"""MMDetection's own, unmodified tools run a distilled config and test its checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
from _helpers.tiny import retinanet
from mmengine.config import Config

from mmkd_plugin.datasets.coco_mini import COCO_MINI_CLASSES, MiniSettings, ensure_coco_mini

OURS = Path(__file__).parents[2] / 'tools'
CONFIGS = OURS.parent / 'configs'
META = dict(classes=COCO_MINI_CLASSES)
STOCK = Path(mmdet.__file__).parent / '.mim' / 'tools'
CONFIG = """
_base_ = ['mmkd_plugin::coco_mini/retina_r18.py', 'mmkd_plugin::_base_/fgd/one_stage.py']
distill = dict(teacher='teacher.py', teacher_ckpt='random')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A project of a user: a config of three lines, a teacher of a plain path, a small data set."""
    path = tmp_path_factory.mktemp('user')
    ensure_coco_mini(path / 'data' / 'coco_mini', MiniSettings(train=8, val=4), report=lambda _: None)
    (path / 'student.py').write_text(CONFIG)
    Config(dict(default_scope='mmdet', model=retinanet(width=24))).dump(path / 'teacher.py')
    return path


def call(folder: Path, script: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(script), *arguments]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


SHORT = ('--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2')


@pytest.mark.parametrize('tools', [STOCK, OURS], ids=['mmdet', 'ours'])
def test_train_then_test(folder, tools):
    work_dir = f'run_{tools.parent.name}'
    trained = call(folder, tools / 'train.py', 'student.py', '--work-dir', work_dir, *SHORT)
    assert trained.returncode == 0, trained.stderr[-3000:]
    output = trained.stdout + trained.stderr
    assert 'Distillation at the first step' in output and 'distill.loss_fgd_relation' in output
    checkpoint = f'{work_dir}/iter_2.pth'
    (folder / 'teacher.py').rename(folder / 'teacher.gone')
    try:
        for config in ('student.py', 'stock.py'):
            Config.fromfile(CONFIGS / 'coco_mini/retina_r18.py').dump(folder / 'stock.py')
            text = (folder / 'stock.py').read_text().replace('mmkd_plugin.CocoMiniDataset', 'CocoDataset')
            (folder / 'stock.py').write_text(
                text.replace("data_root='data/coco_mini/',", f"data_root='data/coco_mini/', metainfo={META},")
            )
            assert 'mmkd_plugin' not in (folder / 'stock.py').read_text()
            options = ('--cfg-options', 'model.test_cfg.score_thr=0.0')
            tested = call(folder, tools / 'test.py', config, checkpoint, '--work-dir', 'tested', *options)
            assert tested.returncode == 0, tested.stderr[-3000:]
            assert 'coco/bbox_mAP' in tested.stdout + tested.stderr
            assert 'not installed' not in tested.stdout + tested.stderr
    finally:
        (folder / 'teacher.gone').rename(folder / 'teacher.py')


def test_printed_config_runs(folder):
    printed = call(folder, OURS / 'print_config.py', 'student.py', '-o', 'expanded.py')
    assert printed.returncode == 0, printed.stderr[-3000:]
    assert 'mmkd_plugin.FGDLoss' in (folder / 'expanded.py').read_text()
    trained = call(folder, STOCK / 'train.py', 'expanded.py', '--work-dir', 'expanded', *SHORT)
    assert trained.returncode == 0, trained.stderr[-3000:]


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('distill.methods.fgd.temprature=1', 'did you mean "temperature"?'),
        ('distill.teacher_ckpt=nowhere.pth', 'nowhere.pth'),
        ('distill.teacher=nowhere.py', 'The teacher config "nowhere.py" does not exist'),
        ('distill.methods.fgd.temperature=0', '"distill.methods.fgd.temperature" is 0; it must be a number above 0.'),
    ],
)
def test_mistakes_end_in_one_sentence(folder, option, message):
    result = call(folder, OURS / 'train.py', 'student.py', '--work-dir', 'wrong', '--cfg-options', option)
    assert result.returncode == 2
    assert 'Traceback' not in result.stderr
    assert message in result.stderr.strip().splitlines()[-1]


def test_missing_config(folder):
    result = call(folder, OURS / 'train.py', 'nowhere.py')
    assert result.returncode == 2
    assert result.stderr.startswith('error: The config file "nowhere.py" does not exist')


def test_missing_data_set(folder):
    result = call(
        folder, OURS / 'train.py', str(OURS.parent / 'configs/fgd/retina_r101_to_r50.py'), '--work-dir', 'coco'
    )
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert 'data/coco/annotations/instances_train2017.json' in last and 'make_coco_mini' in last
