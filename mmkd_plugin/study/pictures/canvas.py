"""Predictions of several models on the same images, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import init_default_scope

from mmkd_plugin.compat.checkpoint import load_model_file, weights_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.stock import build_stock_model
from mmkd_plugin.teachers import local_file
from mmkd_plugin.views.drawing import add_legend

POOL = 100
"""How many images of a data set are looked at for those that show most."""


class Painter(Protocol):
    """What a task draws.

    Attributes:
        columns: Titles of the columns in front of the models'.
    """

    columns: tuple[str, ...]

    def richness(self, dataset: Any, index: int) -> int:
        """How much there is to see on an image."""

    def legend(self) -> list[tuple[str, Any]]:
        """Name and colour of what is drawn."""

    def paint_truth(self, axes: Sequence[Axes], image: np.ndarray, sample: Any) -> None:
        """Fill the columns in front of the models'."""

    def paint_prediction(self, axis: Axes, image: np.ndarray, sample: Any, truth: Any) -> None:
        """Fill a model's column."""


def load_model(config: str | Config, checkpoint: str) -> BaseModel:
    """The stock model of a config with the weights of a checkpoint; raises as :func:`load_weights` does."""
    model = build_model(config if isinstance(config, Config) else Config.fromfile(config))
    load_weights(model, checkpoint)
    return model


def build_model(config: Config) -> BaseModel:
    """The stock model of a config, in evaluation mode, without trained weights."""
    model = build_stock_model(config)
    # Not in a chain: detectors that override train() return nothing from it.
    model.eval()
    return model


def load_weights(model: BaseModel, checkpoint: str) -> None:
    """Fill a model from a checkpoint of the same config.

    Raises:
        DistillError: If the file is no checkpoint, or one of another model.
    """
    state = weights_of(load_model_file(local_file(checkpoint)), checkpoint)
    own = model.state_dict()
    faults = [f'it lacks "{key}"' for key in own if key not in state]
    faults += [f'the model has no "{key}"' for key in state if key not in own]
    faults += [
        f'"{key}" has the shape {tuple(state[key].shape)} in the file and {tuple(own[key].shape)} in the model'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if faults:
        raise DistillError(
            f'The checkpoint "{checkpoint}" is not one of the {type(model).__name__} of the config ({faults[0]}); give '
            'one that was trained with this config.'
        )
    model.load_state_dict(state)


def side_by_side(
    config: str | Config,
    models: Sequence[tuple[str, BaseModel]],
    painter: Callable[[dict], Painter],
    out: Path,
    count: int = 4,
) -> Path:
    """Draw truth and predictions, one image per row and one model per column.

    Args:
        config: Gives the test images; of the first hundred, those with most to see are chosen.
        models: Title and model of each column.
        painter: What is drawn; called with the data set's ``metainfo``.
        out: PNG to write.
        count: Number of images.

    Returns:
        The path written.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = ROOT_DATASETS.build(cfg.test_dataloader.dataset)
    task = painter(dataset.metainfo)
    rich = sorted(range(min(POOL, len(dataset))), key=lambda index: -task.richness(dataset, index))
    items = [dataset[index] for index in rich[: 4 * count : 4]]
    return save(prediction_grid(items, models, task), out)


@torch.no_grad()
def prediction_grid(
    items: Sequence[dict], models: Sequence[tuple[str, BaseModel]], task: Painter, truth: bool = True
) -> Figure:
    """A figure of predictions, one image per row and one model per column.

    Args:
        items: The images, as a test pipeline gives them.
        models: Title and model of each column; each gets the items by ``test_step``.
        task: What is drawn.
        truth: Whether the items hold their truth; without, the first column is the image.

    Returns:
        The figure.
    """
    columns = task.columns if truth else ('image',)
    titles = [*columns, *(title for title, _ in models)]
    height, width = items[0]['inputs'].shape[-2:]
    size = (3 * len(titles), 3 * len(items) * height / width + 0.6)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(items), len(titles), squeeze=False)
    for row, item in zip(axes, items):
        image = image_of(item)
        sample = item['data_samples']
        if truth:
            task.paint_truth(row[: len(columns)], image, sample)
        else:
            row[0].imshow(image)
        for axis, (_, model) in zip(row[len(columns) :], models):
            prediction = model.test_step(pseudo_collate([item]))[0]
            task.paint_prediction(axis, image, prediction, sample)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles):
        axis.set_title(title)
    add_legend(figure, task.legend())
    return figure


def image_of(item: dict) -> np.ndarray:
    """The image of a data set's item as RGB, ``(H, W, 3)``."""
    return np.ascontiguousarray(item['inputs'].permute(1, 2, 0).numpy()[:, :, ::-1])


def save(figure: Figure, out: Path, source: str = '') -> Path:
    """Write a PNG and return its path.

    Args:
        figure: What is drawn.
        out: PNG to write.
        source: Text that the file keeps beside the picture, of what it was made.

    Raises:
        DistillError: If it cannot be written there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=100, metadata={'Source': source} if source else None)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip('.')
        raise DistillError(f'The picture "{out}" cannot be written ({reason}); give one such as mask.png.') from error
    return out
