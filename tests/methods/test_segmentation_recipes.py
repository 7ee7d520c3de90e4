"""The recipes for segmentors build and find their taps, whatever the student."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip('mmseg')

from mmkd_plugin.block import expand_config

THREE = {'loss_pixel', 'loss_pair', 'loss_holistic'}
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def losses(name):
    cfg = Config.fromfile(CONFIGS / name)
    cfg.distill.teacher_ckpt = 'random'
    return expand_config(cfg).model.distiller.distill_losses


@pytest.mark.parametrize('student', ['espnet', 'espnet-c', 'r18'])
def test_students_on_camvid(student):
    name = f'structured_seg/pspnet_r101_to_{student}_camvid'
    assert set(losses(f'{name}.py')) == THREE
    assert set(losses(f'{name}_pixel-pair.py')) == {'loss_pixel', 'loss_pair'}


@pytest.mark.parametrize('data', ['r18_ade20k', 'mobilenet-v2_cityscapes', 'r18-half_cityscapes', 'espnet_ade20k'])
def test_full_recipes(data):
    assert set(losses(f'structured_seg/pspnet_r101_to_{data}.py')) == THREE


@pytest.mark.parametrize(
    ('name', 'images', 'count'), [('r18_cityscapes', 'train_extra', 2), ('espnet_camvid', 'train', 8)]
)
def test_recipes_with_unlabelled_images(name, images, count):
    cfg = Config.fromfile(CONFIGS / f'structured_seg/pspnet_r101_to_{name}_unlabelled.py')
    cfg.distill.teacher_ckpt = 'random'
    expanded = expand_config(cfg)
    assert set(expanded.model.distiller.distill_losses) == THREE
    loader = expanded.train_dataloader
    assert loader.batch_sampler.unlabelled == loader.batch_size == count
    assert loader.dataset.dataset == cfg.train_dataloader.dataset
    unlabelled = loader.dataset.unlabelled
    assert unlabelled.images == f'data/cityscapes/leftImg8bit/{images}'
    kinds = [step['type'] for step in unlabelled.pipeline]
    assert kinds[:2] == ['LoadImageFromFile', 'mmkd_plugin.NoLabels'] and kinds[-1] == 'PackSegInputs'


@pytest.mark.parametrize(
    ('method', 'expected'),
    [
        ('pixel', {'loss_pixel'}),
        ('pixel_pair', {'loss_pixel', 'loss_pair'}),
        ('pspnet_kd', {'loss_pspnet_kd'}),
        ('cwd', {'loss_cwd_level0'}),
    ],
)
def test_small_pairs(method, expected):
    assert set(losses(f'coco_mini/{method}_pspnet_r34_to_r18.py')) == expected


def test_cwd_compares_logits_with_the_published_weight():
    [loss] = losses('coco_mini/cwd_pspnet_r34_to_r18.py').values()
    assert loss == dict(type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=5)


def test_pkd_compares_the_levels_of_a_backbone_without_a_neck():
    found = losses('camvid/pkd_pspnet_r34_to_r18.py')
    assert set(found) == {f'loss_pkd_level{level}' for level in range(4)}
    assert all(loss == dict(type='mmrazor.PKDLoss', loss_weight=6) for loss in found.values())
