"""A step that was not finite: the sentence that ends the run, and the folder that ``mmkd replay`` repeats it from."""

from __future__ import annotations

import dataclasses
import math
import os.path as osp
import pickle
from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmkd_plugin.compat.allow_list import mmengine_globals
from mmkd_plugin.compat.safe_pickle import load_safely, torch_globals
from mmkd_plugin.engine.readings import Finding, Label
from mmkd_plugin.engine.state_hook import STATE_KEY, algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.distributed import is_sharded
from mmkd_plugin.utilities.nested import tensors_of
from mmkd_plugin.utilities.plain import elements_of, to_plain

STEP_FILE = 'step.pth'
_SHOWN = 4


@dataclasses.dataclass
class Step:
    """What a step started from.

    Attributes:
        iteration: Its number, from 1, as in the names of checkpoints.
        epoch: Epochs that were done.
        batch: What the dataloader gave.
        random: The random states.
        rank: Of the process.
    """

    iteration: int
    epoch: int
    batch: Any
    random: dict[str, Any]
    rank: int = 0

    @property
    def images(self) -> list[str]:
        """The files of the batch; where the data has none, what it calls its images."""
        return [_image(element.metainfo, index) for index, element in enumerate(elements_of(self.batch))]


@dataclasses.dataclass
class Fault:
    """A step and what of it is not finite.

    Attributes:
        step: The step.
        findings: What is not finite, in the order in which it was computed.
    """

    step: Step
    findings: list[Finding]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Of several processes the one with the least tells of its fault: the earliest cause."""
        return self.step.iteration, _ORDER.index(self.first.label.kind), self.step.rank

    @property
    def first(self) -> Finding:
        """What the sentence names."""
        return min(self.findings, key=lambda finding: _ORDER.index(finding.label.kind))


_ORDER = ('term', 'loss', 'discriminator', 'gradient', 'scale', 'weight')


def report(runner: Runner, fault: Fault, since: float, updates: int) -> str:
    """Keep the faulty step in the work folder and write the sentence.

    Args:
        runner: The run that ends.
        fault: What was found.
        since: When the training began, in seconds since the epoch; older checkpoints are of another run.
        updates: The last iteration that has changed the weights.

    Returns:
        One sentence with the term and its level, the images, what to try, and how to look closer.
    """
    step = fault.step
    folder = Path(runner.work_dir) / f'fault_iter_{step.iteration}'
    checkpoint = _last_checkpoint(runner, since)
    try:
        state = _state(runner, fault, checkpoint, updates)
        folder.mkdir(parents=True, exist_ok=True)
        # As a zip archive without any object that is more than data.
        torch.save(state, folder / STEP_FILE)
        closer = f'"mmkd replay {folder}" repeats the step'
    except (OSError, RuntimeError, TypeError) as error:
        closer = f'the step could not be kept ({type(error).__name__}: {str(error).splitlines()[0].rstrip(".")})'
    goes_on = f'"{checkpoint}" is the last good checkpoint' if checkpoint else 'no checkpoint was written before'
    images = _listed(step.images)
    where = f' (images {images})' if images else ''
    sentence = f'Iteration {step.iteration}: {_what(fault)}{where}; {_fix(runner, fault)}; {closer}, and {goes_on}.'
    if folder.exists():
        (folder / 'fault.txt').write_text('\n'.join([sentence, '', 'images:', *step.images, '']))
    return sentence


def read_step(folder: str) -> dict[str, Any]:
    """Read what :func:`report` kept, without running anything that the file might hold.

    Args:
        folder: The folder, or the file in it.

    Returns:
        Its contents.

    Raises:
        DistillError: If there is none, it is damaged, or it holds more than data.
    """
    path = Path(folder)
    path = path / STEP_FILE if path.is_dir() else path
    if not path.is_file():
        raise DistillError(
            f'There is no kept step at "{folder}"; give a folder fault_iter_<iteration> of a work folder, which a run '
            'writes when it stops because something is not finite.'
        )
    try:
        state = load_safely(torch.load, str(path), {**torch_globals(), **mmengine_globals()}, 'cpu')
        if not isinstance(state, dict) or _KEYS - set(state):
            raise pickle.UnpicklingError('it is another kind of file')
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise DistillError(
            f'"{path}" is refused, since it is damaged or holds more than the data of a step ({reason}); let the run '
            'that stopped write it again.'
        ) from None
    return state


def bad_weights(module: nn.Module) -> list[str]:
    """Names of the parameters that are not finite."""
    return [name for name, item in module.named_parameters() if not bool(torch.isfinite(item).all())]


_KEYS = {'findings', 'iteration', 'progress', 'images', 'config', 'batch', 'random', 'weights', 'checkpoint', 'seed'}


def _state(runner: Runner, fault: Fault, checkpoint: str, updates: int) -> dict[str, Any]:
    """What a replay needs, in plain containers and tensors."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    algorithm = algorithm_of(runner)
    step = fault.step
    weights = None
    # Buffers may hold what this step left in them; training does not read those that it writes.
    # Where they are sharded, the last checkpoint has them: the other processes are not asked to gather them here.
    if not is_sharded(model) and not bad_weights(model):
        weights = dict(state_dict=to_plain(dict(model.state_dict())), iteration=updates)
        if algorithm is not None:
            weights[STATE_KEY] = to_plain(dict(algorithm.extra_state()))
    try:
        batch, left_out = to_plain(step.batch), ''
    except TypeError as error:
        batch, left_out = None, str(error)
    scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
    return dict(
        findings=[(*finding.label, finding.value) for finding in fault.findings],
        iteration=step.iteration,
        rank=step.rank,
        progress=(step.iteration - 1, step.epoch, runner.max_iters, runner.max_epochs),
        images=step.images,
        config=to_plain(runner.cfg.to_dict() if hasattr(runner.cfg, 'to_dict') else runner.cfg._cfg_dict.to_dict()),
        batch=batch,
        left_out=left_out,
        random=step.random,
        weights=weights,
        checkpoint=checkpoint and osp.abspath(checkpoint),
        seed=runner.seed,
        scaler=to_plain(scaler.state_dict()) if scaler is not None else None,
    )


def _what(fault: Fault) -> str:
    """What is not finite, the first of it by name."""
    first = fault.first
    more = len({finding.label for finding in fault.findings if finding.label.kind == first.label.kind}) - 1
    is_scale = first.label.kind == 'scale'
    value = f'has fallen to {first.value:.3g}' if is_scale else f'is {_worded(first.value)}'
    of = 'after its step ' if first.label.kind == 'weight' else ''
    others = f', as {"is" if more == 1 else "are"} {more} more' if more else ''
    own = next((item for item in fault.findings if item.label.kind == 'loss'), None)
    too = f', and so is {own.label} of the student itself' if own is not None and first.label.kind == 'term' else ''
    return f'{of}{first.label} {value}{others}{too}'


def _worded(value: float) -> str:
    return 'nan' if math.isnan(value) else 'infinite'


def _fix(runner: Runner, fault: Fault) -> str:
    """What a user can try."""
    algorithm = algorithm_of(runner)
    for name, teacher in (algorithm.teachers if algorithm is not None else {}).items():
        bad = bad_weights(teacher.model)
        if bad:
            return f'the weights of teacher "{name}" are not finite themselves ("{bad[0]}"): give it another checkpoint'
    if any(item.is_floating_point() and not bool(torch.isfinite(item).all()) for item in tensors_of(fault.step.batch)):
        return 'the images themselves hold values that are not finite: look at the data'
    # Where all losses break at once, the weights have run away, not the term.
    kinds = {finding.label.kind for finding in fault.findings}
    return {
        'term': 'lower its weight or the learning rate',
        'loss': 'lower the learning rate or let it warm up, and look at their boxes or labels',
        'discriminator': "lower the learning rate of the discriminator's optimizer",
        'gradient': 'look for a division or root at zero in a loss, or lower the learning rate',
        'scale': 'the gradient overflows at every scale: train in single precision or lower the weights',
        'weight': 'lower the learning rate',
    }['loss' if 'loss' in kinds else fault.first.label.kind]


def _image(meta: dict[str, Any], index: int) -> str:
    for key in ('img_path', 'filename', 'ori_filename', 'img_id'):
        if meta.get(key) is not None:
            return str(meta[key])
    return f'number {index} of the batch'


def _listed(images: list[str]) -> str:
    rest = len(images) - _SHOWN
    return ', '.join(images[:_SHOWN]) + (f' and {rest} more' if rest > 0 else '')


def _last_checkpoint(runner: Runner, since: float) -> str:
    """The checkpoint that this run wrote last or was resumed from; empty where there is none."""
    pointer = Path(runner.work_dir) / 'last_checkpoint'
    if not pointer.is_file() or not (runner._resume or pointer.stat().st_mtime >= since):
        return ''
    path = pointer.read_text().strip()
    return path if osp.exists(path) else ''


def worded_label(kind: str, name: str, level: str) -> str:
    """A kept label in words."""
    return str(Label(kind, name, level))
