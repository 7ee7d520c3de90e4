"""Detections of several models on the same images, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.patches
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope

from mmkd_plugin.compat.checkpoint import load_checkpoint_file

SCORE = 0.3
"""Detections below it are not drawn."""


def load_detector(config: str | Config, checkpoint: str) -> BaseModel:
    """The stock detector of a config with the weights of a checkpoint."""
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = ROOT_MODELS.build(cfg.model)
    model.load_state_dict(load_checkpoint_file(checkpoint)['state_dict'], strict=True)
    return model.eval()


@torch.no_grad()
def detection_picture(
    config: str | Config,
    models: Sequence[tuple[str, BaseModel]],
    out: Path,
    count: int = 4,
    score: float = SCORE,
) -> Path:
    """Draw truth and detections, one image per row and one model per column.

    Args:
        config: Gives the test images; those with most objects of the first hundred are chosen.
        models: Title and detector of each column.
        out: PNG to write.
        count: Number of images.
        score: Detections below it are left out.

    Returns:
        The path written.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = ROOT_DATASETS.build(cfg.test_dataloader.dataset)
    names = dataset.metainfo['classes']
    crowded = sorted(range(min(100, len(dataset))), key=lambda index: -len(dataset.get_data_info(index)['instances']))
    chosen = crowded[: 4 * count : 4]
    colours = [matplotlib.colormaps['tab10'](index) for index in range(10)]
    figure = Figure(figsize=(3 * (len(models) + 1), 3 * len(chosen) + 0.6), layout='constrained')
    axes = figure.subplots(len(chosen), len(models) + 1, squeeze=False)
    for row, index in zip(axes, chosen):
        item = dataset[index]
        image = np.ascontiguousarray(item['inputs'].permute(1, 2, 0).numpy()[:, :, ::-1])
        sample = item['data_samples']
        truth = sample.gt_instances
        scale = torch.tensor(sample.metainfo.get('scale_factor', (1.0, 1.0))).repeat(2)
        boxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        _draw(row[0], image, boxes, truth.labels, [''] * len(boxes), names, colours)
        for axis, (_, model) in zip(row[1:], models):
            prediction = model.test_step(pseudo_collate([dataset[index]]))[0].pred_instances
            keep = prediction.scores >= score
            scores = [f' {value:.2f}' for value in prediction.scores[keep]]
            _draw(axis, image, prediction.bboxes[keep] * scale, prediction.labels[keep], scores, names, colours)
    for axis, title in zip(axes[0], ['truth', *(title for title, _ in models)]):
        axis.set_title(title)
    handles = [matplotlib.patches.Patch(color=colours[index % 10], label=name) for index, name in enumerate(names)]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(names))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    return out


def _draw(axis, image, boxes, labels, texts, names, colours) -> None:
    """One panel: an image and its boxes in the colour of their class."""
    axis.imshow(image)
    axis.set_axis_off()
    for (x1, y1, x2, y2), label, text in zip(boxes.tolist(), labels.tolist(), texts):
        colour = colours[label % 10]
        axis.add_patch(matplotlib.patches.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, lw=1.5))
        if text:
            axis.text(
                x1, y1, text, fontsize=6, color='white', backgroundcolor=(*colour[:3], 0.7), va='bottom', clip_on=True
            )
