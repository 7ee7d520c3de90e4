"""The paper's pairs: every student under every larger teacher, on each of the four data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip('mmdet')

import mmkd_plugin.engine  # noqa: F401
from mmkd_plugin.block import expand_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSES = {'voc07': 20, 'coco': 80, 'kitti': 3, 'ilsvrc': 200}
FOLDERS = {'voc07': 'voc', 'coco': 'coco', 'kitti': 'kitti', 'ilsvrc': 'ilsvrc_det'}
BACKBONES = {'tucker': 'Factored', 'alexnet': 'AlexNet', 'vgg-m': 'VGGM', 'vgg16': 'VGG'}
NETWORKS = list(BACKBONES)
PAIRS = [(student, teacher) for index, student in enumerate(NETWORKS) for teacher in NETWORKS[index + 1 :]]


def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def test_there_are_six_pairs():
    assert len(PAIRS) == 6


@pytest.mark.parametrize('data', CLASSES)
@pytest.mark.parametrize(('student', 'teacher'), PAIRS)
def test_student_and_teacher_are_of_the_same_data(student, teacher, data):
    pair = read(f'chen/faster-rcnn_{teacher}_to_{student}_{data}.py')
    folder = FOLDERS[data]
    assert pair.distill.teacher == f'mmkd_plugin::{folder}/faster-rcnn_{teacher}.py'
    assert pair.distill.teacher_ckpt == f'work_dirs/{folder}/faster-rcnn_{teacher}.pth'
    assert pair.distill.methods.chen.tap == 'backbone'
    other = read(f'{folder}/faster-rcnn_{teacher}.py')
    for config, network in ((pair, student), (other, teacher)):
        assert config.model.roi_head.bbox_head.num_classes == CLASSES[data]
        assert config.model.backbone.type == f'mmkd_plugin.{BACKBONES[network]}'
    assert pair.train_dataloader == other.train_dataloader
    assert pair.train_cfg == other.train_cfg
    # The Tucker-decomposed student starts from what the command has made of an AlexNet on the same data.
    assert pair.get('load_from') == (
        f'work_dirs/{folder}/faster-rcnn_alexnet_tucker.pth' if student == 'tucker' else None
    )


@pytest.mark.parametrize('name', ['vgg-m_to_tucker_kitti', 'alexnet_high-res_to_alexnet_voc07'])
def test_a_pair_becomes_a_distiller(name):
    pair = read(f'chen/faster-rcnn_{name}.py')
    pair.distill.teacher_ckpt = 'random'
    losses = set(expand_config(pair).model.distiller.distill_losses)
    roi = {'loss_chen_roi_cls', 'loss_chen_roi_reg', 'loss_chen_hint_level0'}
    rpn = {'loss_chen_rpn_cls_level0', 'loss_chen_rpn_reg_level0'}
    assert losses == (roi if 'high-res' in name else roi | rpn)


def test_the_student_sees_half_of_what_its_teacher_sees():
    pair = read('chen/faster-rcnn_alexnet_high-res_to_alexnet_voc07.py')
    teacher = read('voc/faster-rcnn_alexnet_688.py')

    def size(dataloader):
        return next(step.scale for step in dataloader.dataset.pipeline if step.type == 'Resize')

    assert size(pair.train_dataloader) == size(teacher.test_dataloader) == (1147, 688)
    assert size(pair.test_dataloader)[1] * pair.distill.teacher_scale == 688
    assert pair.model.data_preprocessor.batch_augments[0].scale == pair.distill.teacher_scale == 2
