"""The cells that FGI imitates, over the image they belong to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import FGI
from mmkd_plugin.methods.lookup import find_method
from mmkd_plugin.study.pictures.canvas import add_legend, image_of, save
from mmkd_plugin.teachers.weights import RANDOM_WEIGHTS

LIT = np.array([1.0, 0.75, 0.0])
BOX = '#00e5ff'
_DARK = 0.4
"""What is left of the image's brightness where nothing is imitated."""


@dataclasses.dataclass(frozen=True)
class Level:
    """What is imitated on one level.

    Attributes:
        stride: Side of a cell in pixels.
        mask: ``(H, W)`` bool.
        corner: Column and row of the first cell's upper left corner; with anchors, which lie around the middle of their
            cell, not always the image's.
    """

    stride: int
    mask: Tensor
    corner: tuple[float, float]


def imitation_picture(config: Config, index: int, out: Path) -> Path:
    """Draw a training image and, level by level, the cells that FGI would imitate on it.

    The masks are those of a training step with the block's own options and the student's own anchors. They depend on no
    weights, so that neither model's are read.

    Args:
        config: With an FGI method in its ``distill`` block; gives the training data too.
        index: Of the training image.
        out: PNG to write.

    Returns:
        The path written.

    Raises:
        DistillError: If the block has no FGI, or the data no such image.
    """
    dataset = _training_data(config, index)
    item = dataset[index]
    image = image_of(item)
    height, width = image.shape[:2]
    truth = item['data_samples'].gt_instances.bboxes
    boxes = getattr(truth, 'tensor', truth)
    levels = imitation_levels(config, item)
    rows = 1 if len(levels) < 4 else 2
    columns = -(-(len(levels) + 1) // rows)
    figure = Figure(figsize=(3 * columns, rows * (3 * height / width + 0.3) + 0.4), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(image)
    axes[0].set_title('training image')
    _draw_boxes(axes[0], boxes)
    for axis, level in zip(list(axes)[1:], levels):
        _draw_level(axis, image, level)
        _draw_boxes(axis, boxes)
        axis.set_title(f'stride {level.stride}: {int(level.mask.sum())} of {level.mask.numel()} cells')
    add_legend(figure, [('imitated', LIT), ('object', BOX)])
    return save(figure, out)


def imitation_levels(config: Config, item: dict) -> list[Level]:
    """The levels of FGI for one item of a data set.

    Args:
        config: With an FGI method in its ``distill`` block.
        item: As the data set gives it.

    Raises:
        DistillError: If the block has no FGI.
    """
    algorithm = ROOT_MODELS.build(_imitation_alone(config).model)
    [(name, loss)] = algorithm.distiller.distill_losses.items()
    levels: list[Level] = []

    def keep(algorithm: Any, losses: dict) -> None:
        arguments = algorithm.distiller.arguments(name)
        sizes = [(feature.shape[2], feature.shape[3]) for feature in arguments['student']]
        priors = arguments.get('priors')
        masks = loss.masks(sizes, arguments['boxes'], arguments['valid'], priors)
        for index, (stride, mask) in enumerate(zip(loss.strides, masks)):
            corner = (0.0, 0.0) if priors is None else _corner(priors[index], stride)
            levels.append(Level(stride, mask[0], corner))

    algorithm.step_observers.append(keep)
    # In evaluation mode one image is enough for batch norm.
    algorithm.eval()
    with torch.no_grad():
        data = algorithm.data_preprocessor(pseudo_collate([item]), training=True)
        algorithm.loss(data['inputs'], data['data_samples'])
    return levels


def _corner(priors: Tensor, stride: int) -> tuple[float, float]:
    """Upper left corner of the cell whose anchors come first."""
    x1, y1, x2, y2 = priors.reshape(-1, 4)[0].tolist()
    return (x1 + x2 - stride) / 2, (y1 + y2 - stride) / 2


def _imitation_alone(config: Config) -> Config:
    """The expanded config of a block with its FGI and an untrained teacher."""
    cfg = Config(dict(config.to_dict()))
    methods = (cfg.get('distill') or {}).get('methods') or {}
    names = [
        name
        for name, method in methods.items()
        if isinstance(method, dict) and find_method(method.get('type', ''), f'distill.methods.{name}.type') is FGI
    ]
    if not names:
        raise DistillError(
            'The config has no FGI in its distill block; inherit "mmkd_plugin::_base_/fgi/one_stage.py" or, for '
            'detectors with an RPN, "mmkd_plugin::_base_/fgi/two_stage.py".'
        )
    cfg.distill.methods = {names[0]: methods[names[0]]}
    for teacher in (cfg.distill, *(cfg.distill.get('teachers') or {}).values()):
        if isinstance(teacher, dict) and teacher.get('teacher') is not None:
            teacher['teacher_ckpt'] = RANDOM_WEIGHTS
    expanded = expand_config(cfg)
    if expanded.get('distill') is None and expanded.model.type != 'mmkd_plugin.DistillAlgorithm':
        raise DistillError(f'The weight of "distill.methods.{names[0]}" is 0, so FGI is off; give it a weight.')
    return expanded


def _training_data(config: Config, index: int) -> Any:
    """The training data set, with an image of that index."""
    init_default_scope(config.get('default_scope', 'mmdet'))
    loader = config.get('train_dataloader')
    if loader is None:
        raise DistillError('The config has no train_dataloader, so there is no training image to draw on; add one.')
    try:
        dataset = ROOT_DATASETS.build(loader.dataset)
    except FileNotFoundError as error:
        raise DistillError(
            f'The training data is not there ({error.filename or error}); set train_dataloader.dataset.data_root to '
            'the folder that holds it.'
        ) from error
    if not 0 <= index < len(dataset):
        raise DistillError(f'The training data has {len(dataset)} images, so there is no number {index}.')
    return dataset


def _draw_level(axis: Axes, image: np.ndarray, level: Level) -> None:
    """The image, dark where nothing is imitated and tinted where something is."""
    height, width = image.shape[:2]
    column, row = level.corner
    columns = np.floor((np.arange(width) + 0.5 - column) / level.stride).astype(int)
    rows = np.floor((np.arange(height) + 0.5 - row) / level.stride).astype(int)
    # A frame of unlit cells stands for what lies beyond the map.
    framed = np.pad(level.mask.numpy(), 1)
    last = [side - 1 for side in framed.shape]
    cells = framed[np.clip(rows + 1, 0, last[0])[:, None], np.clip(columns + 1, 0, last[1])]
    colours = image / 255
    axis.imshow(np.where(cells[..., None], 0.55 * colours + 0.45 * LIT, _DARK * colours))


def _draw_boxes(axis: Axes, boxes: Tensor) -> None:
    for x1, y1, x2, y2 in boxes.tolist():
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=BOX, lw=1.3))
