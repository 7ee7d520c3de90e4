"""A checkpoint of any layout as the file of a plain model, verified in the stock one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import load_checkpoint
from torch import Tensor

from mmkd_plugin.compat.checkpoint import load_model_file, readable_refusal, weights_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.made_up import outputs_of
from mmkd_plugin.study.plain_file import dataset_meta, require_other_file, write_plain_file
from mmkd_plugin.study.stock import build_stock_model
from mmkd_plugin.teachers import PlainState, local_file, plain_state_dict
from mmkd_plugin.teachers.layouts import backbone_alone, parts_of, shape_of
from mmkd_plugin.teachers.weights import not_finite
from mmkd_plugin.utilities.rng import isolated_rng

STUDENT, TEACHER = 'student', 'teacher'
_SHOWN = 3
_FIX = 'give the config that it was trained with, or the checkpoint of this one.'


class Exported(NamedTuple):
    """What was written.

    Attributes:
        model: Class of the stock model that the file fills.
        notes: What part of the source was taken and what was renamed, as the end of a sentence.
        averages: Whether the source holds averages of MMEngine's ``EMAHook``; they are what was written.
        entries: How many weights the source has in all, and the file.
        size: Bytes of the file.
        left_out: What else the source holds, beside its weights.
        compared: What was equal in both models beside every weight: ``'outputs'``, ``'features'`` alone where the
            forward pass takes more than an image, or nothing where these do too.
    """

    model: str
    notes: str
    averages: bool
    entries: tuple[int, int]
    size: int
    left_out: tuple[str, ...]
    compared: str


def export_checkpoint(config: Config, source: str, target: Path, part: str = STUDENT) -> Exported:
    """Write the weights of one model of a checkpoint as the stock package would have saved them.

    The file is loaded into a second stock model, strictly, and gets its name if that model gives the same outputs.

    Args:
        config: Of the stock model, or with a ``distill`` block, whose student is meant.
        source: Path or address of a checkpoint.
        target: File to write.
        part: ``'student'``, ``'teacher'``, or what stands before the keys of another model in the file.

    Returns:
        What was written.

    Raises:
        DistillError: If the file does not hold exactly this model, or the target is no place for a file.
    """
    require_other_file(Path(local_file(source)), target)
    model = _build(config)
    checkpoint = load_model_file(local_file(source))
    stored = checkpoint.get('state_dict', checkpoint)
    weights = weights_of(checkpoint, source)
    found = _find(stored, model, part, f'The checkpoint "{source}"')
    _fill(model, found, f'The checkpoint "{source}"{found.notes()}')
    compared, wanted = outputs_of(model)

    def check(path: Path) -> None:
        # On other random numbers, so that what a model draws and does not save shows.
        with isolated_rng():
            again = _build(config)
        with readable_refusal(str(target)):
            load_checkpoint(again, str(path), map_location='cpu', strict=True, logger='silent')
        _require_same(model, again, wanted, target)

    size = write_plain_file(target, model.state_dict(), dataset_meta(checkpoint), check)
    return Exported(
        model=type(model).__name__,
        notes=found.notes(),
        averages='ema_state_dict' in checkpoint,
        entries=(len(weights), len(model.state_dict())),
        size=size,
        left_out=() if stored is checkpoint else tuple(key for key in checkpoint if key not in ('state_dict', 'meta')),
        compared=compared,
    )


def _build(config: Config) -> BaseModel:
    """The stock model in evaluation mode."""
    model = config.get('model') or {}
    if isinstance(model.get('architecture'), dict) and not str(model.get('type')).endswith('DistillAlgorithm'):
        raise DistillError(
            f'The config describes MMRazor\'s "{model.get("type")}", which holds a student; give the stock config of '
            'that student.'
        )
    built = build_stock_model(config)
    # Not in a chain: detectors that override train() return nothing from it.
    built.eval()
    return built


def _find(stored: Mapping[str, Any], model: BaseModel, part: str, name: str) -> PlainState:
    """The part of the file that is meant; a student never turns out to be the teacher beside it."""
    choose = 'name one of them by --part'
    parts = parts_of(stored, model.state_dict().keys())
    teachers = [prefix for prefix in parts if TEACHER in prefix.split('.')]
    if part == TEACHER and teachers:
        if len(teachers) == 1:
            return plain_state_dict(stored, model, teachers[0], name, choose)
        return plain_state_dict(_entries(stored, teachers, True), model, None, name, choose)
    if part != STUDENT:
        return plain_state_dict(stored, model, part, name, choose)
    if teachers and len(teachers) == len(parts):
        raise DistillError(
            f'{name} holds the {type(model).__name__} of the config as a teacher alone, its part "{teachers[0]}"; add '
            '"--part teacher" to take that one.'
        )
    return plain_state_dict(_entries(stored, teachers, False), model, None, name, choose)


def _entries(stored: Mapping[str, Any], prefixes: list[str], within: bool) -> OrderedDict[str, Any]:
    """The entries of a file within some of its parts, or those outside them."""
    kept = OrderedDict((key, value) for key, value in stored.items() if _is_below(key, prefixes) == within)
    kept._metadata = getattr(stored, '_metadata', None)  # type: ignore[attr-defined]
    return kept


def _is_below(key: Any, prefixes: list[str]) -> bool:
    return isinstance(key, str) and any(key.startswith(f'{prefix}.') for prefix in prefixes if prefix)


def _fill(model: BaseModel, found: PlainState, name: str) -> None:
    """Load every entry, or say which ones do not match."""
    wrong = f'{name} does not fit the {type(model).__name__} of the config'
    own = {key: shape_of(value) for key, value in model.state_dict().items()}
    differing = [key for key in own if key in found.state and shape_of(found.state[key]) != own[key]]
    copies = _copies(found.state, own) if not found.prefix else set()
    state = OrderedDict((key, value) for key, value in found.state.items() if key not in copies.union(differing))
    state._metadata = found.state._metadata  # type: ignore[attr-defined]
    try:
        # Modules translate keys of their former versions here.
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().rstrip('.')
        raise DistillError(f'{wrong} ({reason}); {_FIX}') from error
    missing = [key for key in result.missing_keys if key not in differing and not key.endswith('num_batches_tracked')]
    bare = backbone_alone(model, state) if missing else None
    if bare is not None:
        raise DistillError(
            f'{name} holds a backbone alone (such as "{bare}"); give the checkpoint of a whole trained model.'
        )
    shapes = [f'"{key}" {shape_of(found.state[key])} instead of {own[key]}' for key in differing]
    faults = [
        _counted('the file lacks', _quoted(missing)),
        _counted('the model has no place for', _quoted(result.unexpected_keys)),
        _counted('of another shape are', shapes),
    ]
    if any(faults):
        raise DistillError(f'{wrong}: {", ".join(filter(None, faults))}; {_FIX}')
    broken = not_finite(model)
    if broken:
        raise DistillError(
            f'{name} is of a training that had diverged: {_counted("nan or infinite are", _quoted(broken))}; give an '
            'earlier checkpoint.'
        )


def _copies(state: Mapping[str, Any], own: Mapping[str, Any]) -> set[str]:
    """What lies beside plain keys without being of the model: its copies, and the buffers of mmcv 1's averages."""
    copies = {f'ema_{key.replace(".", "_")}' for key in own}
    mine = {key.split('.')[0] for key in own}
    for prefix in parts_of(state, own):
        holder = prefix.split('.')[0]
        # Of another model a few keys agree by chance.
        if holder not in mine and 2 * sum(f'{prefix}.{key}' in state for key in own) > len(own):
            copies.update(key for key in state if _is_below(key, [holder]))
    return copies.difference(own)


def _quoted(keys: Iterable[str]) -> list[str]:
    return [f'"{key}"' for key in keys]


def _counted(what: str, names: list[str]) -> str:
    """What they are, how many, and the first few; empty for none."""
    if not names:
        return ''
    shown = ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
    return f'{what} {len(names)} {"entry" if len(names) == 1 else "entries"} ({shown})'


def _require_same(model: BaseModel, again: BaseModel, wanted: list[Tensor], target: Path) -> None:
    """Refuse a file by which a model is not the one that was written."""
    first, second = model.state_dict(), again.state_dict()
    differing = [key for key in first if not torch.equal(first[key], second[key])]
    found = outputs_of(again)[1]
    same = len(wanted) == len(found) and all(map(_equal, wanted, found))
    if differing or not same:
        what = _counted('not the same are', _quoted(differing)) or 'the outputs differ'
        raise DistillError(
            f'"{target}" is not written, since it gives another {type(model).__name__} than the checkpoint: {what}; '
            'look for a module that draws random numbers, or counts, and does not save them.'
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs are the same to the last bit; what is no number in both is."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
