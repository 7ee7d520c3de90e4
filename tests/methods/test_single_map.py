"""Detectors with a single map: a Faster R-CNN of stride 16, and the light detectors on KITTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers.tiny import batch, block, build, faster_rcnn, losses_of, run_config
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmkd_plugin.block import expand_config
from mmkd_plugin.datasets.to_coco import convert_kitti

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def single_map(base_channels: int = 8) -> dict[str, Any]:
    """A Faster R-CNN on the third stage of its backbone, the one with stride 16."""
    model = faster_rcnn()
    del model['neck']
    width = 4 * base_channels
    model['backbone'].update(
        base_channels=base_channels, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)
    )
    model['rpn_head'].update(in_channels=width)
    model['rpn_head']['anchor_generator'].update(scales=[1, 2], strides=[16])
    model['roi_head']['bbox_roi_extractor'].update(out_channels=width, featmap_strides=[16])
    model['roi_head']['bbox_head'].update(in_channels=width)
    return model


def config(work_dir: Any, method: dict, **changes: Any) -> Config:
    distill = block(teacher=single_map(12), methods=dict(method=method))
    return run_config(work_dir, 2, model=single_map(), distill=distill, **changes)


def test_fgi_by_hand():
    """The squared distance on the cells of stride 16 where an anchor overlaps a box by more than half its best."""
    algorithm = MODELS.build(expand_config(config('unused', dict(type='FGI', loss_weight=0.5))).model).eval()
    student, teacher = algorithm.student, algorithm.teacher.model
    data = batch(algorithm, (1, 2, 5))
    losses = algorithm(**data, mode='loss')
    (connector,) = algorithm.distiller.connectors.values()
    with torch.no_grad():
        ours, theirs = (model.extract_feat(data['inputs'])[0] for model in (student, teacher))
        assert ours.shape[-1] == data['inputs'].shape[-1] // 16 and ours.shape[1] == 32 and theirs.shape[1] == 48
        kernel = connector.conv.weight
        assert kernel.shape == (48, 32, 3, 3)
        adapted = torch.nn.functional.conv2d(ours, kernel, connector.conv.bias, padding=1).relu()
        size = ours.shape[-2:]
        (anchors,) = student.rpn_head.prior_generator.grid_priors([size], device='cpu')
        lit = []
        for sample in data['data_samples']:
            boxes = sample.gt_instances.bboxes
            overlaps = bbox_overlaps(anchors, getattr(boxes, 'tensor', boxes))
            near = (overlaps > 0.5 * overlaps.amax(0)).any(1)
            lit.append(near.view(*size, -1).any(-1))
        mask = torch.stack(lit)
    assert 0 < mask.sum() < mask.numel()
    squares = (adapted - theirs).square().sum(1)
    expected = 0.5 * squares[mask].sum() / (2 * mask.sum())
    torch.testing.assert_close(losses['distill.loss_method_imitation'], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ('method', 'terms'),
    [
        (dict(type='FGI'), {'imitation'}),
        (dict(type='FGD'), {'foreground', 'background', 'attention', 'relation'}),
        (dict(type='Chen'), None),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_methods_train_on_a_single_map(tmp_path, method, terms):
    expanded = expand_config(config(tmp_path, method)).model.distiller
    levels = {name for name in expanded.distill_losses if 'level' in name}
    assert all(name.endswith('level0') for name in levels)
    runner = build(config(tmp_path, method))
    before = {name: item.detach().clone() for name, item in runner.model.named_parameters()}
    runner.train()
    logged = [name[len('train/') :] for name in runner.message_hub.log_scalars if 'distill.' in name]
    if terms is not None:
        assert {name.rpartition('_')[2] for name in logged} == terms
    for name in logged:
        values = losses_of(runner, name)
        assert len(values) == 2 and all(np.isfinite(values))
    assert any(losses_of(runner, name)[0] for name in logged)
    after = dict(runner.model.student.named_parameters())
    changed = [name for name, item in before.items() if not torch.equal(item, after[name])]
    assert any(name.startswith('backbone.') for name in changed)


def test_the_recipe_has_one_level_behind_a_relu():
    cfg = Config.fromfile(CONFIGS / 'fgi' / 'faster-rcnn_c4_r101_to_r50.py')
    cfg.distill.teacher_ckpt = 'random'
    distiller = expand_config(cfg).model.distiller
    assert list(distiller.distill_losses) == ['loss_fgi']
    (connector,) = distiller.connectors.values()
    assert (connector.in_channels, connector.out_channels, connector.kernel_size) == (1024, 1024, 3)
    assert connector.relu is True


@pytest.fixture(scope='module')
def kitti(tmp_path_factory) -> Path:
    """Four images in KITTI's own layout, with a car each."""
    root = tmp_path_factory.mktemp('kitti')
    for folder in ('image_2', 'label_2'):
        (root / 'training' / folder).mkdir(parents=True)
    random = np.random.RandomState(0)
    for index in range(4):
        Image.fromarray(random.randint(0, 255, (96, 192, 3)).astype(np.uint8)).save(
            root / 'training' / 'image_2' / f'{index:06}.png'
        )
        line = f'Car 0.00 0 0.0 {20 + 10 * index} 30 {90 + 10 * index} 70 1.5 1.6 3.9 0.0 1.5 20.0 0.0\n'
        (root / 'training' / 'label_2' / f'{index:06}.txt').write_text(line)
    convert_kitti(root, root / 'annotations')
    return root


@pytest.mark.parametrize(('width', 'channels', 'weight'), [('0.5', 384, 1.0), ('0.25', 192, 0.5)])
def test_light_pairs_train_on_kitti(kitti, tmp_path, monkeypatch, width, channels, weight):
    monkeypatch.setenv('KITTI_ROOT', str(kitti))
    cfg = Config.fromfile(CONFIGS / 'fgi' / f'lite_kitti_1x_to_{width}x.py')
    assert cfg.train_dataloader.dataset.data_root == f'{kitti}/'
    cfg.distill.teacher_ckpt = 'random'
    distiller = expand_config(cfg).model.distiller
    (connector,) = distiller.connectors.values()
    assert (connector.in_channels, connector.out_channels, connector.kernel_size) == (channels, 768, 3)
    assert connector.relu is True
    assert distiller.distill_losses.loss_fgi.loss_weight == weight
    small = dict(type='Resize', scale=(96, 48), keep_ratio=False)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        steps = loader.dataset.pipeline
        loader.dataset.pipeline = [small if step.type == 'Resize' else step for step in steps]
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.work_dir = str(tmp_path)
    runner = build(cfg)
    runner.train()
    values = losses_of(runner, 'distill.loss_fgi_imitation')
    assert len(values) == 2 and all(value > 0 and np.isfinite(value) for value in values)
    assert 'coco/bbox_mAP' in ' '.join(runner.message_hub.log_scalars)
