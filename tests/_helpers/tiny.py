"""Small detectors on made-up images: a whole run takes seconds and needs no file."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

register_all_modules(init_default_scope=False)

exact_resume = pytest.mark.skipif(
    'Advance dataloader' not in inspect.getsource(IterBasedTrainLoop.run),
    reason='this MMEngine starts the data anew when it resumes',
)

CLASSES = ('square', 'bar')


@DATASETS.register_module(force=True)
class TinyBoxes(Dataset):
    """Bright boxes on noise; image 0 has none. Sizes alternate, so that batches are padded. ``order`` gives others."""

    metainfo = dict(classes=CLASSES)

    def __init__(self, length: int = 16, empty: bool = False, order: Sequence[int] = ()) -> None:
        self.length = len(order) or length
        self.empty = empty
        self.order = order

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = self.order[index] if self.order else index
        random = np.random.RandomState(index)
        height, width = (64, 64) if index % 2 else (48, 56)
        image = random.randint(0, 60, (3, height, width)).astype(np.uint8)
        count = 0 if index == 0 or self.empty else 1 + index % 3
        boxes = []
        for _ in range(count):
            x, y = random.randint(0, width - 20), random.randint(0, height - 20)
            w, h = random.randint(8, 20, 2)
            image[:, y : y + h, x : x + w] = random.randint(150, 255)
            boxes.append([x, y, x + w, y + h])
        sample = DetDataSample(
            metainfo=dict(
                img_id=index, img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), flip=False
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([index % 2] * count).long(),
        )
        return dict(inputs=torch.from_numpy(image), data_samples=sample)


def retinanet(width: int = 16, depth: int = 18, **preprocessor: Any) -> dict:
    """Config of a RetinaNet with ``width`` channels in its neck and three levels, strides 8 to 32."""
    model: dict[str, Any] = dict(
        type='RetinaNet',
        _scope_='mmdet',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[100.0, 110.0, 120.0],
            std=[50.0, 60.0, 70.0],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='ResNet',
            depth=depth,
            base_channels=8,
            stem_channels=8,
            norm_cfg=dict(type='BN', requires_grad=True),
            norm_eval=False,
            frozen_stages=-1,
            style='pytorch',
        ),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=width, start_level=1, num_outs=3),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=len(CLASSES),
            in_channels=width,
            stacked_convs=1,
            feat_channels=16,
            anchor_generator=dict(
                type='AnchorGenerator', octave_base_scale=2, scales_per_octave=1, ratios=[1.0], strides=[8, 16, 32]
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=dict(
            nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
        ),
    )
    model['data_preprocessor'].update(preprocessor)
    return model


def faster_rcnn(width: int = 16, depth: int = 18) -> dict:
    """Config of a Faster R-CNN with ``width`` channels in its neck and levels of stride 4 to 64, the last pooled."""
    model = retinanet(width, depth)
    coder = dict(type='DeltaXYWHBBoxCoder')
    losses = dict(loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss'))
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3, ignore_iof_thr=-1)
    sampler = dict(type='RandomSampler', num=16, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True)
    stage = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1, debug=False)
    proposals = dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)
    return dict(
        type='FasterRCNN',
        _scope_='mmdet',
        data_preprocessor=model['data_preprocessor'],
        backbone=model['backbone'],
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=width, num_outs=5),
        rpn_head=dict(
            type='RPNHead',
            in_channels=width,
            feat_channels=16,
            anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0], strides=[4, 8, 16, 32, 64]),
            bbox_coder=coder,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(
                type='SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=0),
                out_channels=width,
                featmap_strides=[4, 8, 16, 32],
            ),
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                in_channels=width,
                fc_out_channels=16,
                roi_feat_size=3,
                num_classes=len(CLASSES),
                bbox_coder=coder,
                **losses,
            ),
        ),
        train_cfg=dict(
            rpn={**stage, 'sampler': {**sampler, 'add_gt_as_proposals': False}}, rpn_proposal=proposals, rcnn=stage
        ),
        test_cfg=dict(
            rpn=proposals, rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
        ),
    )


def batch(model: Any, indices: Sequence[int] = (0, 1, 2)) -> dict:
    """Made-up images as a detector's own preprocessor collates them."""
    items = [TinyBoxes()[index] for index in indices]
    data = dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items])
    return model.data_preprocessor(data, training=True)


def block(**changes: Any) -> dict:
    """A distill block: FGD from a wider, untrained teacher."""
    values = dict(teacher=retinanet(width=24), teacher_ckpt='random', methods=dict(fgd=dict(type='FGD')))
    values.update(changes)
    return values


def run_config(work_dir: Path | str, iterations: int = 4, **changes: Any) -> Config:
    """A run on made-up images; a ``distill`` block is added by the caller."""
    values = dict(
        default_scope='mmdet',
        model=retinanet(),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(type='TinyBoxes'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=10**6),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
            clip_grad=dict(max_norm=35, norm_type=2),
        ),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iterations),
        ),
        log_processor=dict(type='LogProcessor', window_size=1, by_epoch=False),
        randomness=dict(seed=0),
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
        work_dir=str(work_dir),
        log_level='INFO',
        runner_type='mmkd_plugin.DistillRunner',
    )
    values.update(copy.deepcopy(changes))
    return Config(values)


def build(cfg: Config) -> Runner:
    """The runner as the stock tools build it."""
    init_default_scope('mmdet')
    cfg = copy.deepcopy(cfg)
    cfg.experiment_name = f'{Path(cfg.work_dir).name}_{np.random.RandomState().randint(10**9)}'
    return RUNNERS.build(cfg) if cfg.get('runner_type') else Runner.from_cfg(cfg)


def losses_of(runner: Runner, name: str) -> list[float]:
    """Every logged value of one loss."""
    history, _ = runner.message_hub.get_scalar(f'train/{name}').data
    return [float(value) for value in history]


def state_of(runner: Runner) -> dict[str, torch.Tensor]:
    """The weights that the runner would save."""
    return {key: value.clone() for key, value in runner.model.state_dict().items()}
