"""Try one config of a zoo: a step of the stock model, then a step with each method."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import Tensor

from benchmarks.catalogue import general_recipes
from benchmarks.zoo.reasons import lack
from benchmarks.zoo.wider import wider
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.one_step import forgotten_run, offline, one_step_config, walk
from mmkd_plugin.teachers import local_file
from mmkd_plugin.utilities.text import sentence

WORKS, FAILS, STOCK, LEFT_OUT = 'works', 'fails', 'stock', 'left out'
"""What a config comes to: distilled; not distilled; the stock model cannot train; not asked for."""

SIZES = {'mmdet': (128, 320), 'mmseg': (64, 256, 1024)}
"""Sides of the generated images; the next one is tried where the stock model cannot train on the one before."""

TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation'}
"""What the models of a package do."""

RECIPES = {
    package: {name: recipe.path.as_posix() for name, recipe in general_recipes(task).items()}
    for package, task in TASKS.items()
}
"""The recipe of each method that is tried."""

_OTHER_DATA = {
    'MultiBranchDataPreprocessor': 'semi-supervised, for which no data are generated',
    'ReIDDataPreprocessor': 'tells persons apart, without levels or boxes',
    'LineDetDataProcessor': 'finds lines, which have no boxes',
}
"""What is left out, by the preprocessor of its model."""

_PRETRAINED = {'MultimodalEncoderDecoder': 'CLIP'}
"""What models start from that have no initialisation of their own, by their type."""

SAME = 1e-4
"""Relative difference up to which the student's own losses are those of the stock run."""


@dataclasses.dataclass
class Trial:
    """What came of one config.

    Attributes:
        config: Its name below the zoo.
        outcome: One of ``WORKS``, ``FAILS``, ``STOCK`` and ``LEFT_OUT``.
        reason: One sentence where it does not work.
        methods: ``'works'``, or the reason, by method.
        teacher: What the teacher was.
        levels: Number of levels of the neck.
        size: Side of the images in pixels.
        seconds: Time taken.
    """

    config: str
    outcome: str = STOCK
    reason: str = ''
    methods: dict[str, str] = dataclasses.field(default_factory=dict)
    teacher: str = ''
    levels: int = 0
    size: int = 0
    seconds: float = 0.0


def try_config(package: str, name: str) -> Trial:
    """Train a config of the zoo for one step, alone and distilled.

    Args:
        package: ``'mmdet'`` or ``'mmseg'``.
        name: The config below the package's zoo.

    Returns:
        What came of it; no error of the models is raised.
    """
    started = time.monotonic()
    trial = Trial(name)
    try:
        _try(package, trial)
    except _Ends as end:
        trial.outcome, trial.reason = end.outcome, end.reason
    trial.seconds = round(time.monotonic() - started, 1)
    return trial


class _NotBuilt(Exception):
    """A model could not be built."""


class _Ends(Exception):
    """Ends a trial."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


def _try(package: str, trial: Trial) -> None:
    warnings.simplefilter('ignore')
    # By its path: MMEngine finds no name with a plus or a dot in its folder.
    source = local_file(f'{package}::{trial.config}')
    try:
        with tempfile.TemporaryDirectory() as folder:
            cfg = _read(folder, [source])
    except Exception as error:
        said = lack(error)
        raise _Ends(STOCK, f'its config cannot be read: {said}' if said == sentence(error) else said) from error
    if 'model' not in cfg:
        raise _Ends(LEFT_OUT, 'no model in it')
    if package == 'mmdet' and not any(node.get('neck') for node in walk(cfg.model)):
        raise _Ends(LEFT_OUT, 'no neck')
    if cfg.model.get('type') in _PRETRAINED:
        weights = _PRETRAINED[cfg.model.type]
        raise _Ends(STOCK, f'needs the weights of {weights}, which cannot be fetched here')
    preprocessor = str(cfg.model.get('data_preprocessor', {}).get('type'))
    if preprocessor in _OTHER_DATA:
        raise _Ends(LEFT_OUT, _OTHER_DATA[preprocessor])
    stock = None
    for trial.size in SIZES[package]:
        try:
            stock = one_step(cfg, package, trial.size)
            break
        except _NotBuilt as error:
            raise _Ends(STOCK, lack(error.__cause__ or error)) from error
        except Exception as error:
            trial.reason = lack(error)
    if stock is None:
        raise _Ends(STOCK, trial.reason)
    trial.reason = ''
    trial.levels = stock.levels
    if package == 'mmdet' and stock.levels < 2:
        raise _Ends(LEFT_OUT, 'no neck with several levels')
    if not all(math.isfinite(value) for value in stock.losses.values()):
        raise _Ends(STOCK, 'its loss is not finite from random weights')
    with tempfile.TemporaryDirectory() as folder:
        cfg = _read(folder, [source, f'mmkd_plugin::{next(iter(RECIPES[package].values()))}'])
    cfg.distill.update(teacher_ckpt='random', inherit=False)
    blocks = {method: _settings(method, recipe) for method, recipe in RECIPES[package].items()}
    together = _distil(package, trial, cfg, blocks, stock)
    if together == WORKS:
        trial.methods = dict.fromkeys(blocks, WORKS)
    else:
        for method, block in blocks.items():
            trial.methods[method] = _distil(package, trial, cfg, {method: block}, stock)
    faults = [f'{method}: {said}' for method, said in trial.methods.items() if said not in (WORKS, '-')]
    trial.outcome = FAILS if faults else WORKS
    trial.reason = ' '.join(faults)


def _settings(method: str, recipe: str) -> dict:
    """A method's settings in its recipe."""
    methods = Config.fromfile(local_file(f'mmkd_plugin::{recipe}')).distill.methods
    return next(settings for settings in methods.values() if settings.get('type') == method)


def _distil(package: str, trial: Trial, cfg: Config, blocks: dict[str, dict], stock: OneStep) -> str:
    """``'works'``, ``'-'`` where the methods have no meaning for the model, or the reason why they do not work."""
    cfg.distill.methods = {f'{method.lower()}': settings for method, settings in blocks.items()}
    teachers = {'1.5 x wider': wider(cfg.model), 'same width': offline(cfg.model)}
    said = ''
    for what, teacher in teachers.items():
        if teacher is None:
            continue
        teacher.setdefault('_scope_', package)
        cfg.distill.teacher = teacher
        try:
            distilled = one_step(cfg, package, trial.size)
        except Exception as error:
            if isinstance(error, DistillError) and 'no fixed anchors' in str(error):
                return '-'
            said = sentence(error)
            continue
        trial.teacher = trial.teacher or what
        return _compare(stock.losses, distilled.losses)
    return said


def _compare(stock: dict[str, float], distilled: dict[str, float]) -> str:
    """The student's own losses must be those of the stock model, and there must be others."""
    for name, value in stock.items():
        other = distilled.get(name, math.nan)
        if name != 'loss' and not abs(other - value) <= SAME * max(abs(value), 1e-3):
            return f"the student's own {name} is {other:.6g} instead of {value:.6g}"
    terms = [value for name, value in distilled.items() if name.startswith('distill.')]
    if not terms or not all(math.isfinite(value) for value in terms):
        return 'the distillation terms are missing or not finite'
    return WORKS


@dataclasses.dataclass
class OneStep:
    """Losses of one training step by name, and the number of levels that the neck returned."""

    losses: dict[str, float]
    levels: int


def one_step(cfg: Config, package: str, size: int) -> OneStep:
    """Build the runner that a config asks for and train it for one step on generated images.

    Args:
        cfg: A config of the zoo, with or without a distill block.
        package: ``'mmdet'`` or ``'mmseg'``.
        size: Side of the images in pixels.

    Returns:
        What the step logged.
    """
    with tempfile.TemporaryDirectory() as folder, forgotten_run():
        run = one_step_config(cfg, package, size, Path(folder))
        run.experiment_name = uuid.uuid4().hex
        try:
            runner = RUNNERS.build(run) if run.get('runner_type') else Runner.from_cfg(run)
        except Exception as error:
            raise _NotBuilt from error
        levels: list[int] = []
        neck = next((part for path, part in runner.model.named_modules() if path.split('.')[-1] == 'neck'), None)
        handle = neck.register_forward_hook(lambda *call: levels.append(_count(call[-1]))) if neck else None
        runner.train()
        if handle:
            handle.remove()
        losses = {
            name[len('train/') :]: float(buffer.current())
            for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith('train/') and 'loss' in name
        }
        return OneStep(losses, max(levels, default=0))


def _count(output: Any) -> int:
    """Feature maps in a neck's output."""
    if isinstance(output, Tensor):
        return int(output.dim() == 4)
    return sum(map(_count, output)) if isinstance(output, (list, tuple)) else 0


def _read(folder: str, bases: list[str]) -> Config:
    """A config of nothing but bases, as a user writes it."""
    file = Path(folder) / 'config.py'
    file.write_text(f'_base_ = {bases!r}\n')
    return Config.fromfile(file)


def try_and_write(package: str, name: str, result: str, memory: float, folder: str) -> None:
    """Entry point of a process of its own: :func:`try_config`, with the result in a JSON file.

    Args:
        package: ``'mmdet'`` or ``'mmseg'``.
        name: The config below the package's zoo.
        result: Path of the file to write.
        memory: GiB that the process may take.
        folder: Working folder, below which configs find what they name by a relative path.
    """
    import os
    import resource
    import sys

    limit = int(memory * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    log = open(Path(result).with_suffix('.log'), 'w')  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    trial = try_config(package, name)
    Path(result).write_text(json.dumps(dataclasses.asdict(trial), indent=1))
    sys.stdout.flush()
