"""No file of weights runs code while it is read, whichever way it is named, also where torch itself would let it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny, tiny_seg
from _helpers.checkpoints import Gadget
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image
from rich.console import Console

from mmkd_plugin.__main__ import main
from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.compare import Comparison, picture
from mmkd_plugin.study.layers import config_layers
from mmkd_plugin.study.pictures.similarity import similarity_picture
from mmkd_plugin.study.publish import publish_checkpoint
from mmkd_plugin.study.runs import Outcome, test_once


@MODELS.register_module(force=True)
class ReadingResNet(ResNet):
    """A backbone that reads a file while it is built, as some of MMSegmentation's do."""

    def __init__(self, file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        torch.load(file, map_location='cpu')


@pytest.fixture()
def mark(tmp_path: Path) -> Path:
    """A file that exists only if an attack ran."""
    return tmp_path / 'attacked'


@pytest.fixture(autouse=True)
def torch_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that unpickles everything unless it is asked not to, as it did before 2.6."""
    original = torch.load

    def load(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, 'weights_only': bool(kwargs.get('weights_only'))})

    monkeypatch.setattr(torch, 'load', load)


@pytest.fixture()
def evil(tmp_path: Path, mark: Path) -> str:
    """A file of weights that would run a command while it is read."""
    content = dict(state_dict=dict(w=torch.ones(1)), meta={}, note=Gadget(os.system, f'touch {mark}'))
    torch.save(content, tmp_path / 'evil.pth')
    return str(tmp_path / 'evil.pth')


def test_the_attack_is_one(evil: str, mark: Path) -> None:
    torch.load(evil)
    assert mark.exists()


def reading(model: dict, evil: str, way: str) -> dict:
    """A model whose backbone, or the whole of it, names a file of weights."""
    if way == 'while built':
        model['backbone'].update(type='ReadingResNet', file=evil)
    elif way == 'whole model':
        model['init_cfg'] = dict(type='Pretrained', checkpoint=evil)
    else:
        model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=evil)
    return model


def refused(work: Any) -> None:
    with pytest.raises(DistillError, match=r'holds posix\.system'):
        work()


@pytest.fixture(params=['block', 'several teachers', 'printed', 'load_from', 'resume', 'latest'])
def training(request: pytest.FixtureRequest, tmp_path: Path, evil: str) -> Config:
    """A training that reads the file, by each of the ways in which a config names it."""
    way = request.param
    if way in ('block', 'printed'):
        cfg = tiny.run_config(tmp_path, 1, distill=tiny.block(teacher_ckpt=evil))
        if way == 'printed':
            cfg = expand_config(cfg)
            cfg.runner_type = None
        return cfg
    if way == 'several teachers':
        teachers = dict(one=dict(teacher=tiny.retinanet(width=24), teacher_ckpt=evil))
        return tiny.run_config(
            tmp_path, 1, distill=dict(teachers=teachers, methods=dict(fgd=dict(type='FGD', teacher='one')))
        )
    cfg = tiny.run_config(tmp_path, 1, distill=tiny.block())
    if way == 'latest':
        os.replace(evil, tmp_path / 'iter_1.pth')
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_1.pth'))
    else:
        cfg.load_from = evil
    cfg.resume = way != 'load_from'
    return cfg


def test_training(training: Config, mark: Path) -> None:
    refused(lambda: tiny.build(training).train())
    assert not mark.exists()


@pytest.mark.parametrize('way', ['backbone', 'whole model', 'while built'])
@pytest.mark.parametrize('distilled', [False, True])
def test_pretrained_student(tmp_path: Path, evil: str, mark: Path, way: str, distilled: bool) -> None:
    model = reading(tiny.retinanet(), evil, way)
    cfg = tiny.run_config(tmp_path, 1, model=model, distill=tiny.block() if distilled else None)
    refused(lambda: tiny.build(cfg).train())
    assert not mark.exists()


@pytest.mark.parametrize('way', ['backbone', 'whole model'])
def test_pretrained_teacher_is_not_read_at_all(tmp_path: Path, evil: str, mark: Path, way: str) -> None:
    cfg = tiny.run_config(tmp_path, 1, distill=tiny.block(teacher=reading(tiny.retinanet(width=24), evil, way)))
    tiny.build(cfg).train()
    assert not mark.exists()


def test_file_that_a_teacher_reads_while_it_is_built(tmp_path: Path, evil: str, mark: Path) -> None:
    teacher = reading(tiny.retinanet(width=24), evil, 'while built')
    refused(lambda: tiny.build(tiny.run_config(tmp_path, 1, distill=tiny.block(teacher=teacher))).train())
    refused(lambda: expand_config(tiny.run_config(tmp_path, 1, distill=tiny.block(teacher=teacher))))
    assert not mark.exists()


@pytest.mark.parametrize('way', ['test', 'val'])
def test_testing(tmp_path: Path, evil: str, mark: Path, way: str) -> None:
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyBoxes', length=1),
    )
    evaluator = dict(type='DumpDetResults', out_file_path=str(tmp_path / 'out.pkl'))
    loop: dict[str, Any] = {
        f'{way}_dataloader': loader,
        f'{way}_evaluator': evaluator,
        f'{way}_cfg': dict(type=f'{way.title()}Loop'),
    }
    runner = tiny.build(tiny.run_config(tmp_path, 1, load_from=evil, **loop))
    refused(getattr(runner, way))
    if way == 'test':
        refused(lambda: test_once('student', runner.cfg, evil, tmp_path / 'once'))
    assert not mark.exists()


def test_publishing(tmp_path: Path, evil: str, mark: Path) -> None:
    refused(lambda: publish_checkpoint(Path(evil), tmp_path / 'out.pth'))
    assert not mark.exists()


@pytest.mark.parametrize('of', ['student', 'student alone', 'teacher'])
def test_pictures(tmp_path: Path, evil: str, mark: Path, of: str) -> None:
    tiny.init_default_scope('mmseg')
    good = tmp_path / 'good.pth'
    torch.save(dict(state_dict=MODELS.build(tiny_seg.pspnet()).state_dict()), good)
    Image.new('RGB', (64, 64)).save(tmp_path / 'a.png')
    files = {name: evil if name == of else str(good) for name in ('student alone', 'student')}
    pipeline: list[dict] = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    block = tiny_seg.block(dict(type='PairWise'), teacher_ckpt=evil if of == 'teacher' else 'random')
    cfg = tiny_seg.run_config(tmp_path, distill=block, test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    refused(lambda: similarity_picture(cfg, files, tmp_path / 'a.png', (5, 7), tmp_path / 'out.png'))
    assert not mark.exists()


def test_finished_runs_of_a_comparison(tmp_path: Path, evil: str, mark: Path) -> None:
    """Their folder may come from somewhere else: what lies there is JSON, and the weights it names are read safely."""
    cfg = tiny.run_config(tmp_path, 1, distill=tiny.block(teacher_ckpt=evil))
    cfg.dump(tmp_path / 'distilled.py')
    metrics = {f'coco/bbox_mAP{ending}': 0.5 for ending in ('', '_50', '_75', '_s', '_m', '_l')}
    outcome = Outcome('teacher', 0, metrics, evil, 1)
    comparison = Comparison(str(tmp_path / 'distilled.py'), {'mine': str(tmp_path / 'distilled.py')}, [0], tmp_path)
    refused(lambda: picture(comparison, [[outcome]], Console()))
    assert not mark.exists()


def test_layers_and_printed_configs_read_no_weights(tmp_path: Path, evil: str, mark: Path) -> None:
    cfg = tiny.run_config(
        tmp_path, 1, model=reading(tiny.retinanet(), evil, 'backbone'), distill=tiny.block(teacher_ckpt=evil)
    )
    cfg.dump(tmp_path / 'distilled.py')
    config_layers(cfg)
    assert main(['print-config', str(tmp_path / 'distilled.py'), '-o', str(tmp_path / 'printed.py')]) == 0
    assert not mark.exists()
