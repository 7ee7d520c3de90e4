"""Expand a ``distill`` block into the MMRazor algorithm config that it stands for."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_plugin.block.block import DistillBlock, TeacherBlock
from mmkd_plugin.distillers.distiller import SINGLE
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Parts
from mmkd_plugin.probe.models import ModelPair, probe
from mmkd_plugin.teachers.frozen import build_teacher, model_config
from mmkd_plugin.utilities.rng import isolated_rng

STATE_HOOK = dict(type='mmkd_plugin.DistillStateHook')
ADVERSARIAL_HOOK = dict(type='mmkd_plugin.AdversarialHook')
CHECK_HOOK = dict(type='mmkd_plugin.SelfCheckHook')


def expand_block(
    block: DistillBlock, student: nn.Module, teachers: dict[str, nn.Module], sources: dict[str, Any]
) -> dict[str, Any]:
    """Write what the block's methods are for built models.

    Args:
        block: The checked block.
        student: The student.
        teachers: The built teachers by name, those of :meth:`DistillBlock.used_teachers`.
        sources: What the algorithm gets as its teachers: their configs, or the loaded teachers.

    Returns:
        Arguments of :class:`mmkd_plugin.algorithms.DistillAlgorithm` but for the student.
    """
    taps = probe(student, 'student')
    parts = Parts()
    several: dict[str, dict] = {}
    for name, teacher in teachers.items():
        scale = block.teachers[name].teacher_scale
        models = ModelPair(taps, probe(teacher, 'teacher').seen_at(scale), scale)
        of_teacher = Parts()
        for key, method in block.methods.items():
            if method.teacher == name:
                pieces = method.expand(key, models)
                pieces.follow(method, f'distill.methods.{key}')
                of_teacher.merge(pieces)
        options = _teacher_options(block.teachers[name], sources[name])
        if of_teacher.same_classes:
            options['same_classes'] = True
        several[name] = options
        parts.merge(of_teacher.for_teacher(name) if block.several else of_teacher)
    arguments = parts.to_dict()
    arguments.pop('same_classes', None)
    arguments.update(dict(teachers=several) if block.several else several.get(SINGLE, {}))
    return dict(arguments, inherit=block.inherit)


def _teacher_options(teacher: TeacherBlock, source: Any) -> dict[str, Any]:
    """One teacher as the algorithm takes it; the scale is left out at its default."""
    options = dict(teacher=source, teacher_ckpt=teacher.teacher_ckpt, trust_checkpoint=teacher.trust_checkpoint)
    return dict(options, teacher_scale=teacher.teacher_scale) if teacher.teacher_scale != 1 else options


def hooks(block: DistillBlock, adversarial: bool) -> list[dict]:
    """The hooks that a distilled run needs; ``adversarial`` where a discriminator is trained."""
    adversary = [dict(ADVERSARIAL_HOOK)] if adversarial else []
    return [dict(STATE_HOOK), *adversary, *([dict(CHECK_HOOK)] if block.self_check else [])]


def expand_config(cfg: Config) -> Config:
    """Replace the ``distill`` block of a whole config by the algorithm it stands for.

    The teacher's weights are not read, so its checkpoint need not exist.

    Args:
        cfg: A config with ``model`` and ``distill``.

    Returns:
        A config that trains to the same numbers; the config itself where distillation is off.

    Raises:
        DistillError: If the config has no block, or the block is wrong.
    """
    if cfg.get('distill') is None:
        raise DistillError('The config has no distill block, so there is nothing to expand.')
    cfg = copy.deepcopy(cfg)
    block = DistillBlock.parse(cfg.pop('distill'))
    if not block.methods:
        return cfg
    block.require_teacher()
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    configs = {name: model_config(item.teacher) for name, item in block.used_teachers().items()}
    student_config = copy.deepcopy(cfg.model)
    if '_scope_' not in student_config:
        student_config['_scope_'] = cfg.get('default_scope', 'mmengine')
    with isolated_rng():
        student = ROOT_MODELS.build(student_config)
    teachers = {name: build_teacher(config).model for name, config in configs.items()}
    cfg.model = ConfigDict(
        type='mmkd_plugin.DistillAlgorithm',
        architecture=cfg.model,
        **expand_block(block, student, teachers, configs),
    )
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks(block, 'adversaries' in cfg.model)]
    return cfg
