"""MMSegmentation's own, unmodified tools run a distilled config and test its checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import mmseg
import pytest
from _helpers.tiny_seg import pspnet
from mmengine.config import Config

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.datasets.segmentation import CocoMiniSegDataset
from runs.test_stock_tools import call

CLASSES = len(CocoMiniSegDataset.METAINFO['classes'])
STOCK = Path(mmseg.__file__).parent / '.mim' / 'tools'
STUDENT = """
_base_ = ['stock.py', 'mmkd_plugin::_base_/{recipe}']
distill = dict(teacher='teacher.py', teacher_ckpt='random')
"""


def loader(split: str, transforms: list[dict]) -> dict:
    """Config of a dataloader of COCO-mini's semantic maps."""
    prefix = dict(img_path=split, seg_map_path=f'semantic/{split}')
    pipeline = [dict(type='LoadImageFromFile'), *transforms, dict(type='PackSegInputs')]
    return dict(
        batch_size=2 if split == 'train' else 1,
        num_workers=0,
        sampler=dict(type='InfiniteSampler' if split == 'train' else 'DefaultSampler', shuffle=False),
        dataset=dict(
            type='mmkd_plugin.CocoMiniSegDataset', data_root='data/coco_mini', data_prefix=prefix, pipeline=pipeline
        ),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A project of a user: a stock segmentation config, a teacher of a plain path, a small data set."""
    path = tmp_path_factory.mktemp('user')
    ensure_coco_mini(path / 'data' / 'coco_mini', MiniSettings(train=4, val=2), report=lambda _: None)
    crop: list[dict] = [dict(type='LoadAnnotations'), dict(type='RandomCrop', crop_size=(64, 64))]
    stock = dict(
        default_scope='mmseg',
        model=pspnet(classes=CLASSES),
        train_dataloader=loader('train', crop),
        test_dataloader=loader('val', [dict(type='LoadAnnotations')]),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        test_cfg=dict(type='TestLoop'),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
        ),
        log_processor=dict(by_epoch=False),
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
    )
    Config(stock).dump(path / 'stock.py')
    Config(dict(default_scope='mmseg', model=pspnet(24, classes=CLASSES))).dump(path / 'teacher.py')
    return path


@pytest.mark.parametrize(
    ('recipe', 'terms'),
    [
        ('pspnet_kd/pspnet.py', ('distill.loss_pspnet_kd_kl: ', 'distill.loss_pspnet_kd_aux: ')),
        ('structured_seg/pixel_pair.py', ('distill.loss_pixel: ', 'distill.loss_pair: ')),
        (
            'structured_seg/pixel_pair_holistic.py',
            ('distill.loss_holistic: ', 'discriminator.holistic.adversarial: ', 'discriminator.holistic.penalty: '),
        ),
    ],
)
def test_train_then_test(folder, recipe, terms):
    (folder / 'student.py').write_text(STUDENT.format(recipe=recipe))
    shutil.rmtree(folder / 'run', ignore_errors=True)
    trained = call(folder, STOCK / 'train.py', 'student.py', '--work-dir', 'run')
    assert trained.returncode == 0, trained.stderr[-3000:]
    output = trained.stdout + trained.stderr
    assert 'Distillation at the first step' in output and all(term in output for term in terms)
    tested = call(folder, STOCK / 'test.py', 'stock.py', 'run/iter_1.pth', '--work-dir', 'tested')
    assert tested.returncode == 0, tested.stderr[-3000:]
    assert 'mIoU' in tested.stdout + tested.stderr
