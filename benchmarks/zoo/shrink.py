"""Make a config of the zoo cheap to run once: small images, no downloads, one step; and a wider teacher of it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from benchmarks.zoo.language import local_text_encoder
from benchmarks.zoo.samples import needs, walk

_REMOTE = re.compile(r'^(https?|s3|torchvision|open-mmlab|jhu)://|^(huggingface|mmcls|mmpretrain)')
"""Beginnings of values that would be downloaded."""

_ONE_PROCESS = {'SyncBN': 'BN', 'MMSyncBN': 'BN'}
"""Norms over the processes of a run, and what they are in one process; MMEngine itself exchanges only what is built,
and the second one cannot be built by a process that is alone."""

_TEXT_ENCODERS = re.compile(r'^(bert-|google-bert/|roberta-)')
"""Beginnings of the names of text encoders that would be downloaded."""

WIDER = 1.5
"""How much wider the teacher's neck or decode head is made."""


def one_step_config(cfg: Config, package: str, size: int, work_dir: Path) -> Config:
    """A run of one iteration on two generated images.

    The model stays as it is, but for the image size it may be built for, pretrained weights, norms over several
    processes and augmentations that resize whole batches. The optimizer and what it does to single parameters stay as
    well; mixed precision is left out, since a CPU has no loss scaling.

    Args:
        cfg: A config of the zoo, with or without a distill block.
        package: ``'mmdet'`` or ``'mmseg'``.
        size: Side of the images in pixels.
        work_dir: Folder of the run.

    Returns:
        The config of the run.
    """
    model = _fitted(cfg.model, package, size)
    optimizer = copy.deepcopy(cfg.get('optim_wrapper') or dict(optimizer=dict(type='SGD', lr=1e-4)))
    optimizer['type'] = 'OptimWrapper'
    for mixed in ('loss_scale', 'dtype', 'use_fp16'):
        optimizer.pop(mixed, None)
    run = dict(
        default_scope=package,
        model=model,
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=needs(cfg, package, size),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1, val_interval=2),
        optim_wrapper=optimizer,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        log_processor=dict(type='LogProcessor', window_size=1, by_epoch=False),
        randomness=dict(seed=0),
        work_dir=str(work_dir),
        custom_hooks=[],
    )
    run.update({key: copy.deepcopy(cfg[key]) for key in ('distill', 'runner_type') if key in cfg})
    if 'distill' in run and isinstance(run['distill'].get('teacher'), dict):
        run['distill']['teacher'] = _fitted(run['distill']['teacher'], package, size)
    return Config(run)


def _fitted(model: dict, package: str, size: int) -> ConfigDict:
    """A model for images of one size that downloads nothing."""
    model = offline(model)
    preprocessor = model.get('data_preprocessor') or {}
    preprocessor.pop('batch_augments', None)
    for node in walk(model):
        if isinstance(node.get('img_size'), int):
            node['img_size'] = size
        elif node.get('img_size'):
            node['img_size'] = (size, size)
    if package == 'mmseg' and preprocessor:
        preprocessor['size'] = (size, size)
        preprocessor.pop('size_divisor', None)
    return model


def offline(model: dict) -> ConfigDict:
    """A model's config for one process, without anything that would be downloaded.

    Backbones start from random weights, and so does a small text encoder in place of the pretrained one.
    """
    model = copy.deepcopy(ConfigDict(model))
    for node in walk(model):
        init = node.get('init_cfg')
        if any(item.get('type') == 'Pretrained' or 'checkpoint' in item for item in walk(init)):
            node['init_cfg'] = None
        for key, value in list(node.items()):
            if key == 'pretrained' and value is True:
                node[key] = False
            elif not isinstance(value, str):
                continue
            elif key == 'type':
                node[key] = _ONE_PROCESS.get(value, value)
            elif key in ('name', 'lang_model_name') and _TEXT_ENCODERS.match(value):
                node[key] = local_text_encoder(value)
            elif key == 'pretrained' or _REMOTE.match(value):
                node[key] = None
    return model


def wider(model: dict) -> ConfigDict | None:
    """The model with a wider neck, or decode head where it has no neck.

    Every width outside the backbone that equals that of the neck's output grows with it, so that the heads fit.

    Args:
        model: Config of a detector or segmentor.

    Returns:
        The wider model's config; None where its width is not one number.
    """
    model = offline(model)
    neck, head = _last(model.get('neck')), _last(model.get('decode_head'))
    width = neck.get('out_channels', neck.get('in_channels')) if neck else head.get('channels')
    if not isinstance(width, int):
        return None
    if not neck:
        head['channels'] = int(width * WIDER)
        return model
    for name, part in model.items():
        for node in walk(part) if name not in ('backbone', 'data_preprocessor') else ():
            for key, value in node.items():
                if key.endswith('channels') and isinstance(value, int) and value == width:
                    node[key] = int(width * WIDER)
    return model


def _last(part: Any) -> dict:
    """A part of a model, or the last one where several follow each other."""
    return (part[-1] if isinstance(part, (list, tuple)) else part) or {}
