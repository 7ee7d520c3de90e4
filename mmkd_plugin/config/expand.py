"""Expand a ``distill`` block into the MMRazor algorithm config that it stands for."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_plugin.algorithms.rng import isolated_rng
from mmkd_plugin.algorithms.teacher import build_teacher, model_config
from mmkd_plugin.config.block import DistillBlock
from mmkd_plugin.config.methods import Parts
from mmkd_plugin.config.probe import ModelPair, probe
from mmkd_plugin.errors import DistillError

STATE_HOOK = dict(type='mmkd_plugin.DistillStateHook')
ADVERSARIAL_HOOK = dict(type='mmkd_plugin.AdversarialHook')
CHECK_HOOK = dict(type='mmkd_plugin.SelfCheckHook')


def expand_block(block: DistillBlock, student: nn.Module, teacher: nn.Module) -> dict[str, Any]:
    """Write what the block's methods are for two built models.

    Args:
        block: The checked block.
        student: The student.
        teacher: The teacher.

    Returns:
        Arguments of :class:`mmkd_plugin.algorithms.DistillAlgorithm`: the config of the distiller, and options that the
        methods set.
    """
    scale = block.teacher_scale
    models = ModelPair(probe(student, 'student'), probe(teacher, 'teacher').seen_at(scale), scale)
    parts = Parts()
    for name, method in block.methods.items():
        parts.merge(method.expand(name, models))
    return {**parts.to_dict(), **(dict(teacher_scale=scale) if scale != 1 else {})}


def algorithm_options(block: DistillBlock) -> dict[str, Any]:
    """The block's keys that the algorithm takes as they are."""
    return dict(teacher_ckpt=block.teacher_ckpt, inherit=block.inherit, trust_checkpoint=block.trust_checkpoint)


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
    teacher_config = model_config(block.teacher)
    student_config = copy.deepcopy(cfg.model)
    if '_scope_' not in student_config:
        student_config['_scope_'] = cfg.get('default_scope', 'mmengine')
    with isolated_rng():
        student = ROOT_MODELS.build(student_config)
    teacher = build_teacher(teacher_config).model
    cfg.model = ConfigDict(
        type='mmkd_plugin.DistillAlgorithm',
        architecture=cfg.model,
        teacher=teacher_config,
        **expand_block(block, student, teacher),
        **algorithm_options(block),
    )
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks(block, 'adversaries' in cfg.model)]
    return cfg
