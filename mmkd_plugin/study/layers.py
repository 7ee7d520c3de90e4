"""The layers of the models that a config names."""

from __future__ import annotations

from typing import Any, NamedTuple

from mmengine.config import Config

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.probe.listing import ModelLayers, list_layers
from mmkd_plugin.study.stock import build_stock_model
from mmkd_plugin.teachers import build_teacher, model_config


class ConfigLayers(NamedTuple):
    """The layers of student and teacher.

    Attributes:
        student: The student's.
        teacher: The teacher's; None where the config has no distill block.
        teacher_name: Its name among several; empty for the only one.
        teacher_scale: Size of the images that it sees in those of the student.
    """

    student: ModelLayers
    teacher: ModelLayers | None
    teacher_name: str = ''
    teacher_scale: float = 1.0


def config_layers(config: Config, teacher: str | None = None) -> ConfigLayers:
    """Build the models of a config and list their layers; no weights are read, so none need exist.

    Args:
        config: With a ``model``; where it has a ``distill`` block too, the teacher stands beside it.
        teacher: Which of several teachers; the first by default.

    Returns:
        Their layers.

    Raises:
        DistillError: If there is no such teacher, or a model cannot be built or run.
    """
    name, options = _teacher(config.get('distill') or {}, teacher)
    source = options.get('teacher')
    scale = options.get('teacher_scale') or 1.0
    student = list_layers(build_stock_model(config), 'student')
    if source is None:
        return ConfigLayers(student, None)
    return ConfigLayers(student, list_layers(build_teacher(model_config(source)).model, 'teacher', scale), name, scale)


def _teacher(block: dict, wanted: str | None) -> tuple[str, dict[str, Any]]:
    """Name and options of the teacher meant; no options where there is none."""
    teachers = {name: options for name, options in (block.get('teachers') or {}).items() if isinstance(options, dict)}
    if not teachers:
        if wanted is not None:
            has = 'one teacher, which has no name' if block.get('teacher') is not None else 'no teacher'
            raise DistillError(f'The config has {has}; leave "--teacher {wanted}" out.')
        return '', block
    name = wanted if wanted is not None else next(iter(teachers))
    if name not in teachers:
        raise DistillError(f'The config has no teacher "{name}": {nearest(name, teachers)}')
    return name, teachers[name]
