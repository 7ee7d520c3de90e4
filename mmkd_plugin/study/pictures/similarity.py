"""How similar a pixel is to all others, to the teacher and to its students: what the pair-wise loss compares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.nn.functional import interpolate

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.structured_seg import node_similarity
from mmkd_plugin.methods.structured_seg import PairWise
from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.probe.models import ModelPair, probe
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.recorders import ModuleOutputRecorder
from mmkd_plugin.study.pictures.canvas import build_model, image_of, load_weights, save
from mmkd_plugin.study.pictures.images import read_image
from mmkd_plugin.teachers import build_teacher, model_config


def similarity_picture(
    config: Config, students: Mapping[str, str], image: Path, pixel: tuple[int, int], out: Path
) -> Path:
    """Draw an image and the similarity of one of its pixels to all others, model by model.

    The features are those of the block's ``PairWise``, unpooled, or what its defaults would compare. Each student's
    title gives how far its map lies from the teacher's: the mean absolute difference.

    Args:
        config: With a ``distill`` block of a segmentor; gives the test pipeline too.
        students: Checkpoints of students of the config by the name shown.
        image: Image file.
        pixel: Column and row in the image file.
        out: PNG to write.

    Returns:
        The path written.

    Raises:
        DistillError: If the config is not that of a segmentor with a distill block, a checkpoint is of another model,
            the image does not exist or the pixel lies outside.
    """
    init_default_scope(config.get('default_scope', 'mmseg'))
    models = {name: build_model(config) for name in students}
    first = next(iter(models.values()))
    if task_of(first) != 'segmentation':
        raise DistillError(
            f'The picture shows what segmentors compare, and the {type(first).__name__} of the config is none; give a '
            'config such as "mmkd_plugin::coco_mini/pixel_pair_pspnet_r34_to_r18.py".'
        )
    if config.get('distill') is None:
        raise DistillError(
            'The config has no distill block, so there is no teacher to compare with; give the config that the student '
            'was distilled with.'
        )
    item = read_image(config, image)
    shown = image_of(item)
    place = _place(item, pixel)
    block = DistillBlock.parse(config.distill)
    block.require_teacher()
    for name, checkpoint in students.items():
        load_weights(models[name], checkpoint)
    method = next((method for method in block.methods.values() if isinstance(method, PairWise)), PairWise())
    source = block.teachers[method.teacher or next(iter(block.used_teachers()))]
    loaded = build_teacher(
        model_config(source.teacher), source.teacher_ckpt, source.trust_checkpoint, source.teacher_prefix
    )
    teacher = loaded.model.eval()
    of_student, of_teacher, _ = method.taps(ModelPair(probe(first, 'student'), probe(teacher, 'teacher')))
    reference = similarity_map(teacher, of_teacher, item, place)
    maps = {'teacher': reference}
    for name, model in models.items():
        found = similarity_map(model, of_student, item, place)
        distance = (_resized(found, reference) - reference).abs().mean()
        maps[f'{name}, differs by {distance:.2f}'] = found
    return _draw(shown, place, maps, out)


@torch.no_grad()
def similarity_map(model: BaseModel, tap: Tap, item: dict, place: tuple[float, float]) -> Tensor:
    """Cosine similarity of the cell at a place with every cell.

    Args:
        model: The model, in evaluation mode.
        tap: Where its feature is taken from.
        item: The image, as a test pipeline gives it.
        place: Column and row as shares of the image.

    Returns:
        ``(H, W)`` of the feature, -1 to 1.
    """
    recorder = ModuleOutputRecorder(tap.source, direct=tap.direct)
    recorder.initialize(model)
    data = model.data_preprocessor(pseudo_collate([item]), training=False)
    with recorder:
        model(data['inputs'], data['data_samples'], mode='tensor')
    feature = recorder.get_record_data(tap.record_idx, tap.data_idx)[:1].float()
    height, width = feature.shape[2:]
    cell = int(place[1] * height) * width + int(place[0] * width)
    unit = node_similarity(feature)
    return unit[0, cell].view(height, width)


def _place(item: dict, pixel: tuple[int, int]) -> tuple[float, float]:
    """A pixel of the image file as shares of the image."""
    height, width = item['data_samples'].ori_shape[:2]
    if not (0 <= pixel[0] < width and 0 <= pixel[1] < height):
        raise DistillError(f'The image has {width} x {height} pixels, so there is none at {pixel[0]} {pixel[1]}.')
    return (pixel[0] + 0.5) / width, (pixel[1] + 0.5) / height


def _resized(of_student: Tensor, of_teacher: Tensor) -> Tensor:
    return interpolate(of_student[None, None], of_teacher.shape, mode='bilinear')[0, 0]


def _draw(image: np.ndarray, place: tuple[float, float], maps: Mapping[str, Tensor], out: Path) -> Path:
    """The image with its pixel, and one map per model on a common scale."""
    height, width = image.shape[:2]
    lowest = min(float(found.min()) for found in maps.values())
    size = (3.2 * (len(maps) + 1) + 0.8, 3.2 * height / width + 0.5)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(1, len(maps) + 1)
    axes[0].imshow(image)
    axes[0].set_title('image and pixel')
    shown: Any = None
    for axis, (title, found) in zip(axes[1:], maps.items()):
        shown = axis.imshow(found.numpy(), extent=(-0.5, width - 0.5, height - 0.5, -0.5), vmin=lowest, vmax=1)
        axis.set_title(title)
    for axis in axes:
        axis.set_axis_off()
        _mark(axis, place[0] * width - 0.5, place[1] * height - 0.5)
    figure.colorbar(shown, ax=list(axes), label='similarity to the pixel', pad=0.01)
    return save(figure, out)


def _mark(axis: Axes, column: float, row: float) -> None:
    """A cross that shows on bright and on dark."""
    axis.plot(column, row, 'x', color='black', markersize=11, markeredgewidth=4)
    axis.plot(column, row, 'x', color='red', markersize=10, markeredgewidth=2)
