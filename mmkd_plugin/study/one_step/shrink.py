"""Make a config cheap to run once: small images, no downloads, one step."""

from __future__ import annotations

import copy
import re
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmkd_plugin.study.one_step.language import local_text_encoder
from mmkd_plugin.study.one_step.samples import Size, needs, sides, walk
from mmkd_plugin.teachers import model_config

_REMOTE = re.compile(r'^(https?|s3|torchvision|open-mmlab|jhu)://|^(huggingface|mmcls|mmpretrain)')
"""Beginnings of values that would be downloaded."""

_ONE_PROCESS = {'SyncBN': 'BN', 'MMSyncBN': 'BN'}
"""Norms over the processes of a run, and what they are in one process; MMEngine itself exchanges only what is built,
and the second one cannot be built by a process that is alone."""

_TEXT_ENCODERS = re.compile(r'^(bert-|google-bert/|roberta-)')
"""Beginnings of the names of text encoders that would be downloaded."""


def one_step_config(cfg: Config, package: str, size: Size, work_dir: Path) -> Config:
    """A run of one iteration on two generated images.

    Student and teachers stay as they are, but for the image size they may be built for, pretrained weights, norms over
    several processes and augmentations that bring whole batches to sizes of their own. The optimizer and what it does
    to single parameters stay as well; mixed precision is left out, since a CPU has no loss scaling.

    Args:
        cfg: The config of a training, with or without a distill block.
        package: ``'mmdet'`` or ``'mmseg'``.
        size: Side of the images in pixels, or their height and width.
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
    # Images without labels are generated as well, not read from their folder.
    (run.get('distill') or {}).pop('unlabelled', None)
    for teacher in teachers_of(run.get('distill') or {}):
        if teacher.get('teacher') is not None:
            teacher['teacher'] = _fitted(model_config(teacher['teacher']), package, size)
    return Config(run)


def teachers_of(block: dict) -> list[dict]:
    """The dicts of a distill block that name a teacher: the block itself, or one for each of several."""
    return [item for item in (block.get('teachers') or {}).values() if isinstance(item, dict)] or [block]


def _fitted(model: dict, package: str, size: Size) -> ConfigDict:
    """A model for images of one size that downloads nothing."""
    model = offline(model)
    preprocessor = model.get('data_preprocessor') or {}
    augments = preprocessor.pop('batch_augments', None) or []
    # Ours go by the size of the batch, so that they stay.
    own = [item for item in augments if str(item.get('type')).startswith('mmkd_plugin.')]
    if own:
        preprocessor['batch_augments'] = own
    for node in walk(model):
        if isinstance(node.get('img_size'), int) and isinstance(size, int):
            node['img_size'] = size
        elif node.get('img_size'):
            node['img_size'] = sides(size)
    if package == 'mmseg' and preprocessor:
        preprocessor['size'] = sides(size)
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
