"""What teacher and students find in an image: boxes or label maps, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.registry import DATASETS
from mmkd_plugin.study.pictures.canvas import Painter, build_model, load_weights, prediction_grid, save
from mmkd_plugin.study.pictures.detection import DetectionPainter
from mmkd_plugin.study.pictures.images import Shown
from mmkd_plugin.study.pictures.segmentation import SegmentationPainter
from mmkd_plugin.teachers import build_teacher, model_config
from mmkd_plugin.teachers.images import teacher_batch

_PAINTERS: dict[str, type] = {'detection': DetectionPainter, 'segmentation': SegmentationPainter}


def prediction_pictures(config: Config, students: Mapping[str, str], images: Mapping[Path, Shown]) -> list[Path]:
    """Draw what the teacher and students predict, one figure for each image.

    Args:
        config: With a ``distill`` block; without one, the students alone are shown.
        students: Checkpoints by the name shown; may be empty where there is a teacher.
        images: By the PNG to write; those with annotations show their truth.

    Returns:
        The paths written.

    Raises:
        DistillError: If there is nobody to ask, a checkpoint is of another model, or the teacher of another task.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    found = build_model(config)
    task = task_of(found)
    if task not in _PAINTERS:
        raise DistillError(
            f'Boxes and label maps are drawn, and the {type(found).__name__} of the config predicts neither; give the '
            'config of a detector or a segmentor.'
        )
    models: list[tuple[str, Any]] = []
    if config.get('distill') is not None:
        models += [(name, _teacher(item, task)) for name, item in _sources(config).items()]
    for name, checkpoint in students.items():
        model = build_model(config)
        load_weights(model, checkpoint)
        models.append((name, model))
    if not models:
        raise DistillError(
            'The config has no distill block and no checkpoint is given, so there is nobody to ask; give a checkpoint.'
        )
    pictures = []
    for out, image in images.items():
        painter: Painter = _PAINTERS[task](metainfo(config))
        pictures.append(save(prediction_grid([image.item], models, painter, truth=image.annotated), out))
    return pictures


def metainfo(config: Config) -> dict:
    """Names and colours of the classes of the test data, which need not be there."""
    dataset: Any = (config.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    kind: Any = dataset.get('type', '')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    found = dict(kind._load_metainfo(dataset.get('metainfo'))) if hasattr(kind, '_load_metainfo') else {}
    classes = found.setdefault('classes', ())
    if len(found.get('palette') or ()) != len(classes):
        colours = matplotlib.colormaps['tab20'](np.arange(len(classes)) % 20)
        found['palette'] = (255 * colours[:, :3]).round().astype(int).tolist()
    return found


class _ScaledTeacher:
    """A teacher that sees larger or smaller images than the student and tells what it finds in the image's own size."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        self.model: Any = model
        self.scale = scale

    def test_step(self, data: dict) -> list:
        """As the model's own."""
        [image], [sample] = data['inputs'], data['data_samples']
        larger, samples = teacher_batch(image[None].float(), [sample], self.scale)
        assert samples is not None
        meta = samples[0].metainfo
        if 'scale_factor' in meta:
            samples[0].set_metainfo(dict(scale_factor=tuple(self.scale * side for side in meta['scale_factor'])))
        pixels = larger[0].round().clamp(0, 255).to(torch.uint8)
        return self.model.test_step(dict(inputs=[pixels], data_samples=samples))


def _sources(config: Config) -> dict[str, Any]:
    """The block's teachers by the name shown."""
    block = DistillBlock.parse(config.distill)
    block.require_teacher()
    used = block.used_teachers() or block.teachers
    return {'teacher' if len(used) == 1 else f'teacher {name}': item for name, item in used.items()}


def _teacher(source: Any, task: str) -> Any:
    """A teacher of the student's task, in evaluation mode."""
    model = build_teacher(model_config(source.teacher), source.teacher_ckpt, source.trust_checkpoint).model
    if task_of(model) != task:
        raise DistillError(
            f'The teacher, {type(model).__name__}, is no model for {task} as the student is, so that their predictions '
            'cannot be shown side by side; choose a teacher of the same task.'
        )
    # Not in a chain: detectors that override train() return nothing from it.
    model.eval()
    return model if source.teacher_scale == 1 else _ScaledTeacher(model, source.teacher_scale)
