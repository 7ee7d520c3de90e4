"""A config for one step: nothing is downloaded, and the models stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.study.one_step import offline, one_step_config, teachers_of, walk
from mmkd_plugin.teachers import local_file


def zoo(name: str, package: str = 'mmdet') -> Config:
    return Config.fromfile(local_file(f'{package}::{name}'))


def test_nothing_is_downloaded_and_the_model_stays_otherwise():
    cfg = zoo('retinanet/retinanet_r50_fpn_1x_coco.py')
    model = offline(cfg.model)
    assert cfg.model.backbone.pop('init_cfg').type == 'Pretrained'
    assert model.backbone.pop('init_cfg') is None
    assert model == cfg.model
    run = one_step_config(zoo('swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'), 'mmdet', 64, Path('unused'))
    assert run.optim_wrapper.type == 'OptimWrapper' and 'paramwise_cfg' in run.optim_wrapper


def test_models_are_for_one_process_and_need_no_network():
    folder = 'strong_baselines/mask-rcnn_r50-caffe_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py'
    norms = {str(node['type']) for node in walk(zoo(folder).model) if 'BN' in str(node.get('type'))}
    assert 'MMSyncBN' in norms
    assert {str(node['type']) for node in walk(offline(zoo(folder).model)) if 'BN' in str(node.get('type'))} == {'BN'}
    pvt = offline(zoo('pvt/retinanet_pvt-t_fpn_1x_coco.py').model)
    assert pvt.backbone.init_cfg is None
    model = offline(
        dict(type='SOLO', backbone=dict(type='mmpretrain.ConvNeXt', ckpt='mmpretrain::a.py', pretrained=True))
    )
    assert dict(model.backbone) == dict(type='mmpretrain.ConvNeXt', ckpt=None, pretrained=False)


def test_teachers_are_of_the_size_that_their_configs_make_them():
    cfg = zoo('chen/faster-rcnn_r50_high-res_to_r50.py', 'mmkd_plugin')
    run = one_step_config(cfg, 'mmdet', 64, Path('unused'))
    (block,) = teachers_of(run.distill)
    teacher = zoo('faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py').model
    assert teacher.backbone.pop('init_cfg').type == 'Pretrained'
    assert block.teacher.pop('_scope_') == 'mmdet' and block.teacher.backbone.pop('init_cfg') is None
    assert block.teacher == teacher
    assert cfg.distill.teacher == 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'


def test_several_teachers_are_found():
    block = dict(teachers=dict(wide=dict(teacher='a.py'), off=None, large=dict(teacher='b.py')))
    assert [item['teacher'] for item in teachers_of(block)] == ['a.py', 'b.py']
    assert teachers_of(dict(teacher='a.py')) == [dict(teacher='a.py')]


def test_batches_are_resized_by_their_own_size_alone():
    augments = [dict(type='mmkd_plugin.ShrinkBatch', scale=2.0), dict(type='BatchSyncRandomResize')]
    cfg = zoo('yolox/yolox_s_8xb8-300e_coco.py')
    cfg.model.data_preprocessor.batch_augments = augments
    run = one_step_config(cfg, 'mmdet', 64, Path('unused'))
    assert run.model.data_preprocessor.batch_augments == augments[:1]
