"""What teacher and students see in an image: their attention, and how far their features lie apart."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.block import expand_config
from mmkd_plugin.compat.checkpoint import load_model_file
from mmkd_plugin.engine.state_hook import STATE_KEY
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.pictures.canvas import load_weights, save
from mmkd_plugin.study.pictures.images import Shown
from mmkd_plugin.teachers import local_file
from mmkd_plugin.utilities.text import without_prefix
from mmkd_plugin.views.attention import attention_figure, attention_of
from mmkd_plugin.views.compared import Compared, compared_losses, compared_maps, connectors_of, temperature_of
from mmkd_plugin.views.differences import ATTENTION, VALUES, differences, differences_figure
from mmkd_plugin.views.drawing import network_image


class Taps:
    """The maps that a training would compare, of a teacher and of students from checkpoints.

    Args:
        config: With a ``distill`` block.
        method: Which method's maps; by default FGD's, or else those of the first that compares any.

    Raises:
        DistillError: If the config has no block, or no method of it compares maps.
    """

    def __init__(self, config: Config, method: str | None = None) -> None:
        if config.get('distill') is None:
            raise DistillError(
                'The config has no distill block, so there is no teacher to compare with; give the config that the '
                'student was distilled with.'
            )
        expanded = expand_config(_without_schedules(config))
        if expanded.model.type != 'mmkd_plugin.DistillAlgorithm':
            raise DistillError('Every method of the distill block has the weight 0, so nothing is compared; raise one.')
        self.algorithm: DistillAlgorithm = ROOT_MODELS.build(expanded.model)
        self.algorithm.eval()
        self.losses = compared_losses(self.algorithm.distiller, method)
        self.temperature = temperature_of(self.algorithm.distiller, self.losses)

    def load(self, checkpoint: str) -> bool:
        """Take a student's weights and, where its run had them, its connectors.

        Returns:
            Whether the file is of a run with this method, whose connectors, if any, are loaded.

        Raises:
            DistillError: If the file is no checkpoint, or one of another model or block.
        """
        load_weights(self.algorithm.architecture, checkpoint)
        file = load_model_file(local_file(checkpoint))
        state = file.get(STATE_KEY) if isinstance(file, dict) else None
        if not state:
            return False
        for name in connectors_of(self.algorithm.distiller, self.losses):
            start = f'connectors.{name}.'
            stored = {without_prefix(key, start): value for key, value in state.items() if key.startswith(start)}
            try:
                self.algorithm.distiller.connectors[name].load_state_dict(stored)
            except RuntimeError as error:
                raise DistillError(
                    f'The run of the checkpoint "{checkpoint}" had another connector than "{name}" of the distill '
                    'block; give the config that it was trained with.'
                ) from error
        return True

    @torch.no_grad()
    def of(self, item: dict) -> tuple[np.ndarray, list[Compared]]:
        """What is compared on one image.

        Args:
            item: As a test pipeline gives it.

        Returns:
            The image as the network sees it, and the maps of each level.

        Raises:
            DistillError: If the records are no maps.
        """
        algorithm, distiller = self.algorithm, self.algorithm.distiller
        data = algorithm.data_preprocessor(pseudo_collate([item]), training=False)
        inputs, samples = data['inputs'], data['data_samples']
        try:
            with distiller.recording():
                algorithm.architecture(inputs, samples, mode='tensor')
            for teacher in algorithm.teachers.values():
                teacher.run(inputs, samples, distiller.teacher_records_needed(self.losses))
            levels = compared_maps(distiller, self.losses)
        finally:
            distiller.release_records()
        if not levels:
            raise DistillError(
                f'"{self.losses[0]}" compares no feature maps (N, C, H, W) in a plain forward pass; name another '
                'method of the distill block with --method.'
            )
        return network_image(algorithm.data_preprocessor, inputs[0]), levels


def attention_pictures(
    config: Config, students: Mapping[str, str], images: Mapping[Path, Shown], method: str | None = None
) -> list[Path]:
    """Draw the spatial and channel attention of the teacher and of students, one figure for each image.

    Args:
        config: With a ``distill`` block.
        students: Checkpoints by the name shown; may be empty.
        images: By the PNG to write.
        method: Whose maps; by default FGD's, or else those of the first method that compares any.

    Returns:
        The paths written.

    Raises:
        DistillError: If the config has no such method, or a checkpoint is of another model.
    """
    taps = Taps(config, method)
    shown: dict[Path, Any] = {}
    models: dict[Path, dict[str, Any]] = {}
    for name, checkpoint in students.items() or [('', '')]:
        connected = bool(checkpoint) and taps.load(checkpoint)
        for out, image in images.items():
            shown[out], levels = taps.of(image.item)
            found = models.setdefault(out, {})
            if not found:
                found['teacher'] = attention_of([level.teacher for level in levels], taps.temperature)
            if checkpoint:
                title, features = _shown(name, levels, connected)
                found[title] = attention_of(features, taps.temperature)
    return [save(attention_figure(shown[out], models[out]), out) for out in images]


def feature_pictures(
    config: Config, students: Mapping[str, str], images: Mapping[Path, Shown], method: str | None = None
) -> list[Path]:
    """Draw how far students' features lie from the teacher's, one figure for each image.

    Where the block has connectors, a student without trained ones, such as the student alone, cannot be compared value
    by value, nor can features of two widths; then all are compared by their spatial attention, as the scale says.

    Args:
        config: With a ``distill`` block.
        students: Checkpoints by the name shown, one at least.
        images: By the PNG to write.
        method: Whose maps; by default FGD's, or else those of the first method that compares any.

    Returns:
        The paths written.

    Raises:
        DistillError: If the config has no such method, or a checkpoint is of another model.
    """
    taps = Taps(config, method)
    shown: dict[Path, Any] = {}
    seen: dict[Path, dict[str, list[tuple[Tensor, Tensor]]]] = {out: {} for out in images}
    measure = VALUES
    for name, checkpoint in students.items():
        connected = taps.load(checkpoint)
        for out, image in images.items():
            shown[out], levels = taps.of(image.item)
            title, features = _shown(name, levels, connected)
            seen[out][title] = list(zip(features, (level.teacher for level in levels)))
            plain = not connected and any(level.connected for level in levels)
            # Losses such as PairWise compare features of two widths without a connector.
            if plain or any(own.shape != teacher.shape for own, teacher in seen[out][title]):
                measure = ATTENTION
    pictures = []
    for out in images:
        maps = {title: differences(pairs, measure, taps.temperature) for title, pairs in seen[out].items()}
        pictures.append(save(differences_figure(shown[out], maps, measure), out))
    return pictures


def _shown(name: str, levels: Sequence[Compared], connected: bool) -> tuple[str, list[Tensor]]:
    """A student's title and features: as the loss gets them, or before connectors that its run did not train."""
    plain = not connected and any(level.connected for level in levels)
    title = f'{name},\nbefore the connector' if plain else name
    return title, [level.student if plain else level.adapted for level in levels]


def _without_schedules(config: Config) -> Config:
    """A config whose methods all have their full weight."""
    cfg = copy.deepcopy(config)
    methods = cfg.distill.get('methods') if isinstance(cfg.distill, dict) else None
    for method in (methods or {}).values():
        if isinstance(method, dict):
            for key in ('schedule', 'schedules'):
                method.pop(key, None)
    return cfg
