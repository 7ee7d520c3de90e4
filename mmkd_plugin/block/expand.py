"""Expand a ``distill`` block into the MMRazor algorithm config that it stands for."""

from __future__ import annotations

import copy
import inspect
from typing import Any, Dict, List, Mapping, Union

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_plugin.block.block import DistillBlock
from mmkd_plugin.block.unlabelled import mix_unlabelled
from mmkd_plugin.compat.checkpoint import build_safely
from mmkd_plugin.compat.razor import BaseAlgorithm
from mmkd_plugin.compat.unread_block import refuse_misspelt_block
from mmkd_plugin.distillers.balance import SETTLE
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Method, Parts
from mmkd_plugin.probe.models import ModelPair, ModelTaps, probe
from mmkd_plugin.registry import TASK_UTILS
from mmkd_plugin.teachers import build_teacher, model_config
from mmkd_plugin.utilities.rng import isolated_rng


def expand_block(
    block: DistillBlock,
    student: nn.Module,
    teachers: Mapping[str, Union[nn.Module, ModelTaps]],
    sources: Dict[str, Any],
) -> Dict[str, Any]:
    """Write what the block's methods are for built models.

    Args:
        block: The checked block.
        student: The student.
        teachers: The built teachers by name, those of :meth:`DistillBlock.used_teachers`, or what is known of them.
        sources: What the algorithm gets as its teachers: their configs, or the loaded teachers.

    Returns:
        Arguments of :class:`mmkd_plugin.algorithms.DistillAlgorithm` but for the student.

    Raises:
        DistillError: If images without labels are to join the batches of another model than a segmentor.
    """
    taps = probe(student, 'student')
    if block.unlabelled is not None and taps.task != 'segmentation':
        raise DistillError(
            f'"distill.unlabelled" is for segmentors, whose task loss leaves out whole images, but the student, '
            f'{taps.name}, is none; leave it out.'
        )
    parts = Parts()
    options: Dict[str, Dict[str, Any]] = {}
    for name, teacher in teachers.items():
        settings = block.teachers[name]
        scale = settings.teacher_scale
        of_model = teacher if isinstance(teacher, ModelTaps) else probe(teacher, 'teacher')
        models = ModelPair(taps, of_model.seen_at(scale), scale)
        of_teacher = Parts()
        for key, method in block.methods.items():
            if method.teacher == name:
                expanded = method.expand_scheduled(key, models)
                if block.teacher_cache is not None:
                    _require_kept(key, method, expanded)
                of_teacher.merge(expanded)
        options[name] = dict(
            teacher=sources[name], teacher_ckpt=settings.teacher_ckpt, trust_checkpoint=settings.trust_checkpoint
        )
        if settings.teacher_prefix is not None:
            options[name]['teacher_prefix'] = settings.teacher_prefix
        if settings.teacher_options:
            options[name]['teacher_options'] = dict(settings.teacher_options)
        if of_teacher.same_classes:
            options[name]['same_classes'] = True
        if scale != 1:
            options[name]['teacher_scale'] = scale
        parts.merge(of_teacher.of_teacher(name))
    distiller = parts.distiller()
    if block.compile_losses:
        distiller['compile_losses'] = True
    if parts.balance and block.settle != SETTLE:
        distiller['settle'] = block.settle
    return dict(teachers=options, distiller=distiller, inherit=block.inherit, **parts.options())


def _require_kept(name: str, method: Method, parts: Parts) -> None:
    """Refuse a method whose records of the teacher depend on more than the image."""
    for recorder in parts.teacher_recorders.values():
        kind = recorder['type']
        # As MMRazor completes the names of its recorders.
        if not hasattr(TASK_UTILS.get(f'{kind}Recorder'), 'restore'):
            what = f'{kind.split(".")[-1]} of its {recorder.get("source") or "inputs"}'
            raise DistillError(
                f'"distill.methods.{name}" ({type(method).__name__}) asks the teacher for {what}, which cannot be '
                'kept: they depend on what the student proposes in each step, or their recorder has no "restore"; set '
                'distill.teacher_cache=False, or leave the method out.'
            )


def required_hooks(adversaries: bool, self_check: bool) -> List[Dict[str, Any]]:
    """The hooks that a distilled run needs.

    Args:
        adversaries: Whether discriminators are trained.
        self_check: Whether the first step is looked at.

    Returns:
        Their configs.
    """
    names = [
        'DistillStateHook',
        'FiniteHook',
        *(['AdversarialHook'] if adversaries else []),
        *(['SelfCheckHook'] if self_check else []),
    ]
    return [dict(type=f'mmkd_plugin.{name}') for name in names]


_NO_STUDENTS = ('distill', 'distiller', 'teacher', 'teacher_ckpt', 'teachers', 'methods')
"""What is written beside a student, or inside an expanded config, but not into a student."""


def require_plain_student(model: Any) -> None:
    """Refuse what belongs to distillation in the config of the student itself.

    Args:
        model: Config of the student beside a ``distill`` block; a built model is left alone.

    Raises:
        DistillError: Naming the key and where to write it.
    """
    if not isinstance(model, dict):
        return
    written = [key for key in _NO_STUDENTS if key in model]
    student = model.get('type')
    if written and isinstance(student, str):
        with ROOT_MODELS.switch_scope_and_registry(model.get('_scope_')) as registry:
            student = registry.get(student)
    if not written or not isinstance(student, type) or issubclass(student, BaseAlgorithm):
        return
    taken = inspect.signature(student).parameters
    foreign = [key for key in written if key not in taken]
    if foreign:
        raise DistillError(
            f'"model.{foreign[0]}" is no argument of the student, {student.__name__}; write what distils it into the '
            'distill block: distill.teacher, distill.teacher_ckpt, distill.methods.<name>.<key>.'
        )


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
    refuse_misspelt_block(cfg)
    cfg = copy.deepcopy(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    block = DistillBlock.parse(cfg.pop('distill'))
    if not block.methods:
        return cfg
    block.require_teacher()
    require_plain_student(cfg.model)
    configs = {name: model_config(item.teacher) for name, item in block.used_teachers().items()}
    student_config = copy.deepcopy(cfg.model)
    if '_scope_' not in student_config:
        student_config['_scope_'] = cfg.get('default_scope', 'mmengine')
    with isolated_rng():
        student = build_safely(student_config)
    teachers = {name: build_teacher(config).model for name, config in configs.items()}
    cfg.model = ConfigDict(
        type='mmkd_plugin.DistillAlgorithm',
        architecture=cfg.model,
        **expand_block(block, student, teachers, configs),
    )
    if block.unlabelled is not None:
        cfg.train_dataloader = ConfigDict(mix_unlabelled(cfg.get('train_dataloader'), block.unlabelled))
    wanted = required_hooks('adversaries' in cfg.model, block.self_check)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *wanted]
    return cfg
