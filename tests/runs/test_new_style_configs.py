"""Configs of the new style, which hold classes and inherit by ``read_base``, under our tool and the stock one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
from _helpers.tiny import block, losses_of, retinanet, run_config
from mmengine.config import Config
from mmengine.registry import RUNNERS

TESTS = Path(__file__).parents[1]
OURS = TESTS.parent / 'tools/train.py'
STOCK = Path(mmdet.__file__).parent / '.mim/tools/train.py'
STUDENT = """
from mmengine.config import read_base
from mmrazor.models.losses import PKDLoss
from mmkd_plugin.engine import DistillRunner
from mmkd_plugin.methods import FGD, Feature
from _helpers.tiny import TinyBoxes

with read_base():
    from .base import *

train_dataloader.update(dataset=dict(type=TinyBoxes))
runner_type = {runner}
distill = dict(
    teacher={teacher},
    teacher_ckpt='random',
    methods=dict(fgd=dict(type=FGD), pkd=dict(type=Feature, loss=dict(type=PKDLoss, loss_weight=2))),
)
"""
SEGMENTOR = """
from mmengine.config import read_base
from torch.optim import SGD
from mmkd_plugin.engine import DistillRunner
from mmkd_plugin.methods import Holistic

with read_base():
    from .base import *

runner_type = DistillRunner
distill = dict(
    teacher='teacher.py',
    teacher_ckpt='random',
    methods=dict(holistic=dict(type=Holistic, widths=[8, 8], optimizer=dict(type=SGD, lr=1e-3))),
)
"""
TEACHER = """
from mmengine.config import read_base
from mmdet.models.detectors import RetinaNet

with read_base():
    from .wide import *

model.update(type=RetinaNet)
"""


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose student and teacher are written in the new style."""
    run_config(tmp_path / 'work', iterations=1).dump(tmp_path / 'base.py')
    text = (tmp_path / 'base.py').read_text()
    (tmp_path / 'base.py').write_text(text.replace("runner_type = 'mmkd_plugin.DistillRunner'\n", ''))
    Config(dict(default_scope='mmdet', model=retinanet(width=24))).dump(tmp_path / 'wide.py')
    (tmp_path / 'teacher.py').write_text(TEACHER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('tool', [OURS, STOCK], ids=['ours', 'mmdet'])
@pytest.mark.parametrize('runner', ['DistillRunner', "'mmkd_plugin.DistillRunner'"], ids=['class', 'name'])
def test_block_of_classes_distils(folder: Path, tool: Path, runner: str) -> None:
    (folder / 'student.py').write_text(STUDENT.format(runner=runner, teacher="'teacher.py'"))
    environment = {**os.environ, 'PYTHONPATH': str(TESTS), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    command = [sys.executable, '-W', 'ignore', str(tool), 'student.py']
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr
    assert 'distill.loss_fgd_relation' in output and 'distill.loss_pkd' in output


def test_classes_and_names_train_to_the_same_numbers(folder: Path) -> None:
    (folder / 'student.py').write_text(STUDENT.format(runner='DistillRunner', teacher=dict(retinanet(width=24))))
    by_class = Config.fromfile(folder / 'student.py')
    methods = dict(fgd=dict(type='FGD'), pkd=dict(type='Feature', loss=dict(type='PKDLoss', loss_weight=2)))
    by_name = run_config(folder / 'names', iterations=1, distill=block(methods=methods))
    values = []
    for index, cfg in enumerate((by_class, by_name)):
        cfg.experiment_name = f'{folder.name}_{index}'
        runner = RUNNERS.build(cfg)
        runner.train()
        values.append([losses_of(runner, name) for name in ('loss', 'distill.loss_pkd', 'distill.loss_fgd_relation')])
    assert values[0] == values[1]


def test_class_of_a_discriminators_optimizer(folder: Path) -> None:
    from _helpers import tiny_seg

    tiny_seg.run_config(folder / 'seg', iterations=1).dump(folder / 'base.py')
    Config(dict(default_scope='mmseg', model=tiny_seg.pspnet(width=24))).dump(folder / 'teacher.py')
    (folder / 'student.py').write_text(SEGMENTOR)
    cfg = Config.fromfile(folder / 'student.py')
    cfg.experiment_name = f'{folder.name}_seg'
    runner = RUNNERS.build(cfg)
    runner.train()
    assert losses_of(runner, 'discriminator.holistic.adversarial')
