"""Build a teacher and read its weights, all of them or none."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.checkpoint import build_safely, load_checkpoint_file
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.layouts import PlainState, backbone_alone, plain_state_dict, shape_of
from mmkd_plugin.teachers.source import local_file
from mmkd_plugin.utilities.rng import isolated_rng

RANDOM_WEIGHTS = 'random'
"""Value of ``teacher_ckpt`` with which a teacher without trained weights is accepted on purpose."""


class LoadedTeacher(NamedTuple):
    """A built teacher.

    Attributes:
        model: The teacher with its weights.
        report: One sentence on what was loaded.
        meta: ``meta`` of its checkpoint, empty without one.
    """

    model: nn.Module
    report: str
    meta: dict


def build_teacher(
    model: dict | nn.Module, checkpoint: str | None = None, trust_checkpoint: bool = False, prefix: str | None = None
) -> LoadedTeacher:
    """Build a teacher and load its weights.

    Args:
        model: Its config, or the built model.
        checkpoint: Path or address of its weights, or ``package::path`` for a file beside a package's configs; None for
            a model that carries them already, ``'random'`` for untrained weights on purpose.
        trust_checkpoint: Whether the file may run code of its own while it is read.
        prefix: The part of the file that holds the teacher, such as ``'student'``; found by itself if None.

    Returns:
        The model, what was loaded, and the checkpoint's meta information.

    Raises:
        DistillError: If the checkpoint is missing, refused, or covers only part of the teacher.
    """
    with isolated_rng():
        if isinstance(model, nn.Module):
            teacher = model
        else:
            try:
                teacher = build_safely(_without_pretrained(model))
            except Exception as error:
                raise DistillError(
                    f'The teacher of type "{model.get("type")}" cannot be built ({str(error).splitlines()[0]}); '
                    'correct its config or choose another teacher.'
                ) from error
            if checkpoint == RANDOM_WEIGHTS:
                teacher.init_weights()
    if checkpoint is None or checkpoint == RANDOM_WEIGHTS:
        return LoadedTeacher(teacher, 'teacher weights: untrained' if checkpoint else 'teacher weights: as built', {})
    loaded = load_checkpoint_file(local_file(checkpoint), trust=trust_checkpoint)
    report = _load_all(teacher, loaded, checkpoint, prefix)
    _require_finite(teacher, checkpoint)
    meta = loaded.get('meta')
    return LoadedTeacher(teacher, report, meta if isinstance(meta, dict) else {})


def _without_pretrained(model: dict) -> dict:
    """Drop pretrained backbone weights: the teacher's checkpoint replaces them."""
    model = copy.deepcopy(model)

    def strip(node: Any) -> None:
        if isinstance(node, dict):
            init = node.get('init_cfg')
            if isinstance(init, dict) and init.get('type') == 'Pretrained':
                node['init_cfg'] = None
            if isinstance(node.get('pretrained'), str):
                node['pretrained'] = None
            for value in node.values():
                strip(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                strip(value)

    strip(model)
    return model


def _load_all(teacher: nn.Module, checkpoint: dict, name: str, prefix: str | None) -> str:
    """Load every weight of the teacher, or say what the checkpoint lacks."""
    stored = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(stored, dict) or not any(isinstance(value, Tensor) for value in stored.values()):
        raise DistillError(
            f'The teacher checkpoint "{name}" holds {_contents(stored)} instead of weights by their names; give the '
            'file that training saved.'
        )
    own = teacher.state_dict()
    required = [key for key in own if not key.endswith('num_batches_tracked')]
    found = plain_state_dict(
        stored, teacher, prefix, f'The teacher checkpoint "{name}"', 'say which by distill.teacher_prefix'
    )
    differing = [key for key in required if key in found.state and shape_of(found.state[key]) != shape_of(own[key])]
    fitting = OrderedDict((key, value) for key, value in found.state.items() if key not in differing)
    fitting._metadata = found.state._metadata  # type: ignore[attr-defined]
    result = teacher.load_state_dict(fitting, strict=False)
    missing = [key for key in result.missing_keys if key in required]
    if missing:
        _refuse(teacher, found, name, missing, differing, len(required))
    if found.deeper is not None:
        raise DistillError(
            f'The teacher checkpoint "{name}" has a deeper backbone than the {type(teacher).__name__} of the teacher '
            f'config ("{found.deeper}" has no place in it); give the checkpoint that was trained with this config.'
        )
    unused = len(stored) - len(found.state) + len(result.unexpected_keys)
    report = f'teacher weights: {len(required)} of {len(required)} entries loaded from {name}{found.notes()}'
    return report + (f', {unused} entries of the file not used' if unused else '')


def _refuse(
    teacher: nn.Module, found: PlainState, name: str, missing: list[str], differing: list[str], required: int
) -> None:
    """Say why a file does not fill the teacher."""
    bare = backbone_alone(teacher, found.state)
    if bare is not None:
        raise DistillError(
            f'The teacher checkpoint "{name}" holds a backbone alone (such as "{bare}"); give the checkpoint of a '
            "whole trained model, and name this one in init_cfg=dict(type='Pretrained', ...) of a backbone to train."
        )
    if any(key.startswith('roi_head.') and key[len('roi_head.') :] in found.state for key in missing):
        raise DistillError(
            f'The teacher checkpoint "{name}" was written by MMDetection 1 (it has no "roi_head."); convert it by '
            " MMDetection's tools/model_converters/upgrade_model_version.py."
        )
    first = (
        f'"{differing[0]}" has the shape {shape_of(found.state[differing[0]])} in the file and '
        f'{shape_of(teacher.state_dict()[differing[0]])} in the model'
        if differing
        else f'"{missing[0]}" is missing'
    )
    raise DistillError(
        f'The teacher checkpoint "{name}"{found.notes()} fills {required - len(missing)} of {required} entries of '
        f'{type(teacher).__name__} ({first}); give the checkpoint that was trained with this teacher config.'
    )


def _contents(stored: Any) -> str:
    """What a file holds that is no checkpoint."""
    if isinstance(stored, dict):
        return 'a dict of ' + (', '.join(f'"{key}"' for key in list(stored)[:5]) or 'nothing')
    name = type(stored).__name__
    return f'{"an" if name[0] in "aeiou" else "a"} {name}'


def not_finite(model: nn.Module) -> list[str]:
    """Look for what a training that has diverged leaves.

    Buffers other than statistics may hold infinity, as masks do.

    Args:
        model: A model with its weights.

    Returns:
        The keys of such entries.
    """
    broken = [key for key, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    for key, value in model.named_buffers():
        statistic = key.endswith(('running_mean', 'running_var'))
        if bool(torch.isnan(value).any()) or statistic and not bool(torch.isfinite(value).all()):
            broken.append(key)
    return broken


def _require_finite(teacher: nn.Module, name: str) -> None:
    """Refuse weights of a training that had diverged."""
    broken = not_finite(teacher)
    if broken:
        more = f' and {len(broken) - 1} more entries' if len(broken) > 1 else ''
        raise DistillError(
            f'The teacher checkpoint "{name}" holds nan or infinity in "{broken[0]}"{more}, so its training had '
            'diverged; give the checkpoint of a teacher that has learnt.'
        )
