"""Size and operations of the models of a run, built from the config that the run has written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmkd_plugin.block import expand_config
from mmkd_plugin.study.compare import teacher_config
from mmkd_plugin.study.complexity import complexity
from mmkd_plugin.study.made_up import SIDE, made_up_item
from mmkd_plugin.study.pictures.canvas import build_model
from mmkd_plugin.utilities.rng import isolated_rng

PIXELS = 1_500_000
"""On a larger image operations are not counted, since that runs the model once, perhaps without a GPU."""


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """What a model is made of.

    Attributes:
        role: ``'student'`` or ``'teacher'``.
        kind: Its class; empty where it cannot be built.
        parameters: Their number, None where it cannot be built.
        flops: Multiplications with an addition for an image of that size, None where they cannot be counted.
        size: Height and width of the image.
        reason: Why a number is missing.
    """

    role: str
    kind: str = ''
    parameters: int | None = None
    flops: int | None = None
    size: tuple[int, int] = (0, 0)
    reason: str = ''


def model_sizes(entries: Mapping[str, Any]) -> list[ModelSize]:
    """Build student and teacher, without weights, and count.

    Args:
        entries: Of the config of a run.

    Returns:
        The student, and the first teacher where there is a block; with a reason where one cannot be built.
    """
    cfg = Config(dict(entries))
    try:
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
    except Exception as error:  # a module of somebody else's machine
        return [ModelSize('student', reason=_reason(error))]
    found = [_size('student', cfg)]
    block = cfg.get('distill')
    if block and block.get('teacher' if 'teacher' in block else 'teachers'):
        try:
            found.append(_size('teacher', teacher_config(cfg)))
        except Exception as error:  # the teacher's config may lie on another machine
            found.append(ModelSize('teacher', reason=_reason(error)))
    return found


def expanded_text(entries: Mapping[str, Any]) -> tuple[str, str]:
    """What ``mmkd print-config`` prints for a config.

    Args:
        entries: Of the config of a run.

    Returns:
        The text, and why there is none.
    """
    try:
        return expand_config(Config(dict(entries))).pretty_text, ''
    except Exception as error:  # models of any zoo
        return '', _reason(error)


def image_size(cfg: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the image that operations are counted on.

    Args:
        cfg: A config.

    Returns:
        What the model's preprocessor brings images to; or else what the validation data or the test data is resized
        to, or :data:`~mmkd_plugin.study.made_up.SIDE`.
    """
    model = cfg.get('model') or {}
    size = (model.get('data_preprocessor') or {}).get('size')
    if size:
        return _pair(size)
    for split in ('test_dataloader', 'val_dataloader'):
        for step in _steps((cfg.get(split) or {}).get('dataset')):
            if step.get('type') in ('Resize', 'mmdet.Resize', 'mmseg.Resize') and step.get('scale'):
                width, height = _pair(step['scale'])
                return height, width
    return SIDE, SIDE


def _size(role: str, cfg: Config) -> ModelSize:
    model_cfg = cfg.get('model') or {}
    if str(model_cfg.get('type')).endswith('DistillAlgorithm'):
        cfg = Config(dict(cfg.to_dict(), model=model_cfg['architecture']))
    size = image_size(cfg)
    try:
        with isolated_rng():
            model = build_model(cfg)
        if size[0] * size[1] > PIXELS:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            return ModelSize(role, type(model).__name__, parameters, None, size, 'the image is too large to try')
        counted = complexity(model, made_up_item(model, size))
    except Exception as error:  # a model of any zoo may ask for anything
        return ModelSize(role, size=size, reason=_reason(error))
    reason = '' if counted.flops is not None else 'its forward pass takes more than an image'
    return ModelSize(role, type(model).__name__, counted.parameters, counted.flops, size, reason)


def _steps(dataset: Any) -> Iterator[dict[str, Any]]:
    """The steps of the pipeline of a data set, or of the one that it wraps."""
    while isinstance(dataset, dict):
        for step in dataset.get('pipeline') or ():
            if isinstance(step, dict):
                yield step
        dataset = dataset.get('dataset')


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
