"""From a tree like COCO's to a trained student: the tool makes the subset, and the shipped pairs read it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from _helpers.coco_tree import CATEGORY_IDS, coco_tree
from _helpers.zoo import zoo_weights
from mmengine.config import Config

from mmkd_plugin.block import expand_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/coco_subset'
PAIRS = {
    'fgd_retina_r101_to_r50': 'loss_fgd_relation',
    'fgd_faster-rcnn_r101_to_r50': 'loss_fgd_relation',
    'pixel_pair_pspnet_r101_to_r50': 'loss_pair',
}
BACKBONE = 'depth=18, base_channels=8, stem_channels=8'
FPN = 'neck=dict(in_channels=[8, 16, 32, 64], out_channels=16)'
NARROW = dict(
    retina=f'backbone=dict({BACKBONE}, init_cfg=None), {FPN}, bbox_head=dict(in_channels=16, feat_channels=16)',
    faster=f'backbone=dict({BACKBONE}, init_cfg=None), {FPN}, rpn_head=dict(in_channels=16, feat_channels=16), '
    'roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=32))',
    pspnet=f'pretrained=None, backbone=dict({BACKBONE}), decode_head=dict(in_channels=64, channels=16), '
    'auxiliary_head=dict(in_channels=32, channels=16)',
)
SMALL = [
    *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
    *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'),
]
OF_DETECTORS = [
    *('train_cfg.max_epochs=1', 'train_dataloader.dataset.pipeline.2.scale=(128,96)'),
    *('val_dataloader.dataset.pipeline.1.scale=(128,96)', 'model.test_cfg.score_thr=0.0'),
    'model.test_cfg.rcnn.score_thr=0.0',
]
OF_SEGMENTORS = [
    *('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2'),
    *('train_dataloader.dataset.pipeline.2.scale=(256,64)', 'train_dataloader.dataset.pipeline.3.crop_size=(64,64)'),
    *('model.data_preprocessor.size=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(128,64)'),
    'default_hooks.checkpoint.interval=2',
]


def full(name: str) -> Config:
    """A shipped config."""
    if 'pspnet' in name:
        pytest.importorskip('mmseg')
    return Config.fromfile(CONFIGS / f'{name}.py')


def tool(name: str, *arguments: str) -> None:
    runpy.run_path(str(ROOT / 'tools' / name))['main'](list(arguments))


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A project of a user, with COCO where every OpenMMLab config expects it, and the subset made from it."""
    path = tmp_path_factory.mktemp('user')
    coco_tree(path / 'data/coco', dict(train2017=12, val2017=6))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        tool('make_coco_mini.py', '--from-coco', 'data/coco', '--maps', '--train', '8', '--val', '4')
    return path


def test_the_subset_is_cocos(folder):
    content = json.loads((folder / 'data/coco_subset/annotations/instances_train.json').read_bytes())
    assert [category['id'] for category in content['categories']] == CATEGORY_IDS
    with_objects = {entry['image_id'] for entry in content['annotations'] if not entry['iscrowd']}
    assert len(content['images']) == 8 and {image['id'] for image in content['images']} == with_objects
    assert sum(entry['iscrowd'] for entry in content['annotations']) == 8
    maps = (folder / 'data/coco_subset/semantic/val').iterdir()
    images = (folder / 'data/coco_subset/val').iterdir()
    assert {path.name for path in maps} == {f'{path.stem}_labelTrainIds.png' for path in images}


@pytest.mark.parametrize('name', PAIRS)
def test_a_pair_trains_on_the_subset(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    config = full(name)
    narrow = next(widths for family, widths in NARROW.items() if family in name)
    Path('teacher.py').write_text(f"_base_ = '{config.distill.teacher}'\nmodel = dict({narrow})\n")
    Path('student.py').write_text(
        f"_base_ = 'mmkd_plugin::coco_subset/{name}.py'\nmodel = dict({narrow})\n"
        "distill = dict(teacher='teacher.py', teacher_ckpt='random')\n"
    )
    options = [*SMALL, *(OF_SEGMENTORS if 'pspnet' in name else OF_DETECTORS)]
    tool('train.py', 'student.py', '--work-dir', name, '--cfg-options', *options)
    log = next(Path(name).glob('*/*.log')).read_text()
    metric = 'mIoU' if 'pspnet' in name else 'coco/bbox_mAP'
    assert f'{metric}: ' in log
    checkpoint = torch.load(Path(name, Path(name, 'last_checkpoint').read_text().split('/')[-1]), weights_only=False)
    assert all(bool(torch.isfinite(value).all()) for value in checkpoint['state_dict'].values())
    terms = checkpoint['message_hub']['log_scalars']
    assert any(PAIRS[name] in term for term in terms)


@pytest.mark.parametrize('name', PAIRS)
def test_the_full_pair_reads_the_subset_and_names_the_zoos_weights(name):
    config = full(name)
    assert config.distill.teacher_ckpt == zoo_weights(config.distill.teacher)
    for split, loader in (('train', config.train_dataloader), ('val', config.val_dataloader)):
        assert loader.dataset.data_root == 'data/coco_subset/'
        assert f'{split}' in str(loader.dataset.data_prefix) and '2017' not in str(loader.dataset)
    assert config.test_dataloader == config.val_dataloader
    assert '2017' not in str(config.val_evaluator)
    config.distill.teacher_ckpt = 'random'
    found = {key.split('_level')[0] for key in expand_config(config).model.distiller.distill_losses}
    assert found == {f'loss_{method}' for method in config.distill.methods}
