"""A training image in a step of one method, for what depends on no weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from mmkd_plugin.block import expand_config
from mmkd_plugin.distillers import Distiller
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Method
from mmkd_plugin.methods.lookup import find_method
from mmkd_plugin.teachers.weights import RANDOM_WEIGHTS
from mmkd_plugin.views.drawing import network_image

Seen = TypeVar('Seen')


def training_item(config: Config, index: int) -> dict:
    """An image of the training data, behind its pipeline.

    Args:
        config: With a ``train_dataloader``.
        index: From 0.

    Raises:
        DistillError: If there is no such data, or no such image in it.
    """
    return dataset_of(config, 'train_dataloader', index)[index]


def dataset_of(config: Config, loader: str, index: int) -> Any:
    """The data set of a loader, with an image of an index; raises as :func:`training_item` does."""
    init_default_scope(config.get('default_scope', 'mmdet'))
    kind = 'training' if loader.startswith('train') else 'test'
    if config.get(loader) is None:
        raise DistillError(f'The config has no {loader}, so there is no {kind} image to draw on; add one.')
    try:
        dataset = ROOT_DATASETS.build(config[loader].dataset)
    except FileNotFoundError as error:
        raise DistillError(
            f'The {kind} data is not there ({error.filename or error}); set {loader}.dataset.data_root to the folder '
            'that holds it.'
        ) from error
    if not 0 <= index < len(dataset):
        raise DistillError(f'The {kind} data has {len(dataset)} images, so there is no number {index}.')
    return dataset


def in_a_step(expanded: Config, item: dict, look: Callable[[Distiller], Seen]) -> tuple[np.ndarray, Tensor, Seen]:
    """Run a training step on one image.

    Args:
        expanded: What :func:`with_one_method` gave.
        item: The image, as the training data gives it.
        look: Called with the distiller while it holds the records of the step.

    Returns:
        The image as the network sees it, its boxes, and what ``look`` gave.
    """
    algorithm = ROOT_MODELS.build(expanded.model)
    seen: list[Seen] = []
    algorithm.step_observers.append(lambda algorithm, losses: seen.append(look(algorithm.distiller)))
    # In evaluation mode one image is enough for batch norm.
    algorithm.eval()
    with torch.no_grad():
        data = algorithm.data_preprocessor(pseudo_collate([item]), training=True)
        algorithm.loss(data['inputs'], data['data_samples'])
    truth = data['data_samples'][0].gt_instances.bboxes
    image = network_image(algorithm.data_preprocessor, data['inputs'][0])
    return image, getattr(truth, 'tensor', truth), seen[0]


def with_one_method(config: Config, kind: type[Method], recipes: str) -> Config:
    """The expanded config of a block with one method and an untrained teacher.

    Args:
        config: With the method in its ``distill`` block.
        kind: The method.
        recipes: What to inherit where the block lacks it, for messages.

    Raises:
        DistillError: If the block has no such method.
    """
    cfg = Config(dict(config.to_dict()))
    methods = (cfg.get('distill') or {}).get('methods') or {}
    names = [
        name
        for name, method in methods.items()
        if isinstance(method, dict) and find_method(method.get('type', ''), f'distill.methods.{name}.type') is kind
    ]
    if not names:
        raise DistillError(f'The config has no {kind.__name__} in its distill block; inherit {recipes}.')
    method = methods[names[0]]
    # What begins later in the run is shown all the same.
    cfg.distill.methods = {names[0]: {key: value for key, value in method.items() if not key.startswith('schedule')}}
    for teacher in (cfg.distill, *(cfg.distill.get('teachers') or {}).values()):
        if isinstance(teacher, dict) and teacher.get('teacher') is not None:
            teacher['teacher_ckpt'] = RANDOM_WEIGHTS
    expanded = expand_config(cfg)
    if expanded.get('distill') is None and expanded.model.type != 'mmkd_plugin.DistillAlgorithm':
        raise DistillError(
            f'The weight of "distill.methods.{names[0]}" is 0, so {kind.__name__} is off; give it a weight.'
        )
    return expanded
