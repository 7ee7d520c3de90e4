"""Build a teacher and read its weights, all of them or none."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.checkpoint import build_safely, load_checkpoint_file
from mmkd_plugin.errors import DistillError
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
    model: dict | nn.Module, checkpoint: str | None = None, trust_checkpoint: bool = False
) -> LoadedTeacher:
    """Build a teacher and load its weights.

    Args:
        model: Its config, or the built model.
        checkpoint: Path or address of its weights, or ``package::path`` for a file beside a package's configs; None for
            a model that carries them already, ``'random'`` for untrained weights on purpose.
        trust_checkpoint: Whether the file may run code of its own while it is read.

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
    report = _load_all(teacher, loaded, checkpoint)
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


def _load_all(teacher: nn.Module, checkpoint: dict, name: str) -> str:
    """Load every weight of the teacher, or say what the checkpoint lacks."""
    stored = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(stored, dict) or not any(isinstance(value, Tensor) for value in stored.values()):
        raise DistillError(
            f'The teacher checkpoint "{name}" holds {_contents(stored)} instead of weights by their names; give the '
            'file that training saved.'
        )
    state = OrderedDict((re.sub(r'^(module|architecture)\.', '', key), value) for key, value in stored.items())
    own = teacher.state_dict()
    required = [key for key in own if not key.endswith('num_batches_tracked')]
    differing = [key for key in required if key in state and _shape(state[key]) != tuple(own[key].shape)]
    fitting = OrderedDict((key, value) for key, value in state.items() if key not in differing)
    # The version of the modules that wrote the file, by which they translate keys of former names.
    fitting._metadata = getattr(stored, '_metadata', None)  # type: ignore[attr-defined]
    result = teacher.load_state_dict(fitting, strict=False)
    missing = [key for key in result.missing_keys if key in required]
    if missing:
        first = (
            f'"{differing[0]}" has the shape {_shape(state[differing[0]])} in the file and '
            f'{tuple(own[differing[0]].shape)} in the model'
            if differing
            else f'"{missing[0]}" is missing'
        )
        raise DistillError(
            f'The teacher checkpoint "{name}" fills {len(required) - len(missing)} of {len(required)} entries of '
            f'{type(teacher).__name__} ({first}); give the checkpoint that was trained with this teacher config.'
        )
    unused = len(result.unexpected_keys)
    report = f'teacher weights: {len(required)} of {len(required)} entries loaded from {name}'
    return report + (f', {unused} entries of the file not used' if unused else '')


def _contents(stored: Any) -> str:
    """What a file holds that is no checkpoint."""
    if isinstance(stored, dict):
        return 'a dict of ' + (', '.join(f'"{key}"' for key in list(stored)[:5]) or 'nothing')
    name = type(stored).__name__
    return f'{"an" if name[0] in "aeiou" else "a"} {name}'


def _shape(value: Any) -> tuple | None:
    """The shape of an entry, None where it is no tensor."""
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _require_finite(teacher: nn.Module, name: str) -> None:
    """Refuse weights of a training that had diverged; buffers other than statistics may hold infinity, as masks do."""
    broken = [key for key, value in teacher.named_parameters() if not bool(torch.isfinite(value).all())]
    for key, value in teacher.named_buffers():
        statistic = key.endswith(('running_mean', 'running_var'))
        if bool(torch.isnan(value).any()) or statistic and not bool(torch.isfinite(value).all()):
            broken.append(key)
    if broken:
        more = f' and {len(broken) - 1} more entries' if len(broken) > 1 else ''
        raise DistillError(
            f'The teacher checkpoint "{name}" holds nan or infinity in "{broken[0]}"{more}, so its training had '
            'diverged; give the checkpoint of a teacher that has learnt.'
        )
