"""What a model costs once it is trained: its size, its operations and its time for an image."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import init_default_scope

from mmkd_plugin.study.complexity import complexity

IMAGES = 10
"""How many test images each model is timed on."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a model costs when it is used.

    Attributes:
        parameters: Their number.
        flops: Operations for the first test image, see :class:`~mmkd_plugin.study.complexity.Complexity`.
        seconds_per_image: Median time to predict one test image, what follows the heads included.
    """

    parameters: int
    flops: int | None
    seconds_per_image: float


def costs(models: Mapping[str, BaseModel], cfg: Config, images: int = IMAGES) -> dict[str, Cost]:
    """Measure several models on the same test images, one image at a time.

    The models take turns on every image, so that whatever else the machine does meets all of them.

    Args:
        models: Stock models in evaluation mode, with trained weights: how many boxes are found takes time too.
        cfg: Gives the test images.
        images: How many of them, at most.

    Returns:
        The costs by name.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = ROOT_DATASETS.build(cfg.test_dataloader.dataset)
    batches = [pseudo_collate([dataset[index]]) for index in range(min(images, len(dataset)))]
    device = get_device()
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.to(device)
        # The first image meets caches and buffers that are not there yet.
        _predict(model, batches[0])
    for batch in batches:
        for name, model in models.items():
            seconds[name].append(_predict(model, batch))
    found = {}
    for name, model in models.items():
        counts = complexity(model, batches[0])
        found[name] = Cost(counts.parameters, counts.flops, statistics.median(seconds[name]))
    return found


@torch.no_grad()
def _predict(model: BaseModel, batch: dict[str, Any]) -> float:
    """Seconds that a model takes for a batch."""
    _wait()
    started = time.perf_counter()
    model.test_step(batch)
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    """Let a GPU finish, whose work is only queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
