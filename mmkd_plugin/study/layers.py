"""The layers of the models that a config names."""

from __future__ import annotations

from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_plugin.compat.checkpoint import build_safely
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.probe.listing import ModelLayers, list_layers
from mmkd_plugin.teachers import build_teacher, model_config
from mmkd_plugin.utilities.rng import isolated_rng


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
    init_default_scope(config.get('default_scope', 'mmengine'))
    student = list_layers(_student(config), 'student')
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


def _student(config: Config) -> nn.Module:
    if config.get('model') is None:
        raise DistillError('The config holds no "model"; give a config that describes a detector or segmentor.')
    model = model_config(config)
    try:
        with isolated_rng():
            return build_safely(model)
    except Exception as error:
        # The first sentence; MMEngine goes on with advice on registries.
        reason = (str(error) or type(error).__name__).splitlines()[0].split('. ')[0].strip('"\'.')
        raise DistillError(
            f'The model of type "{model.get("type")}" cannot be built ({reason}); correct the config.'
        ) from error
