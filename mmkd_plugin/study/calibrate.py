"""Measure on a config's own batches how strongly its methods pull, and what weights would give them a share."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import tempfile
import uuid
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.algorithms.gradients import Pull, pulls_by_term
from mmkd_plugin.block import DistillBlock
from mmkd_plugin.cli import build_runner, on_one_process
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import WEIGHT, divided


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a term or a method came to, on the average of the batches.

    Attributes:
        value: In the value of the task loss.
        gradient: Geometric mean of its gradient in that of the task loss; NaN where it had none.
        spread: The factor by which single batches lie off that.
    """

    value: float
    gradient: float
    spread: float


@dataclasses.dataclass(frozen=True)
class MethodWeight:
    """A method's weight, as it is and as a share asks for it.

    Attributes:
        measured: All of its terms together.
        weight: The ``loss_weight`` that it had, the geometric mean where it found itself.
        share: The share that is asked for.
        wanted: The ``loss_weight`` that gives it; None where no gradient was found.
        inside: Whether it is written into the dict of the method's loss.
    """

    measured: Measured
    weight: float
    share: float
    wanted: float | None
    inside: bool = False


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The outcome.

    Attributes:
        after: Iterations that were trained before.
        batches: How many were measured.
        terms: By the name that is logged, levels added up.
        methods: By name.
    """

    after: int
    batches: int
    terms: dict[str, Measured]
    methods: dict[str, MethodWeight]

    def block(self) -> str:
        """The entries of a config that give every method its share."""
        lines = []
        for name, found in self.methods.items():
            if found.wanted is not None:
                entry = f'{WEIGHT}={found.wanted:.3g}'
                lines.append(f'        {name}=dict({f"loss=dict({entry})" if found.inside else entry}),')
        return '\n'.join(['distill = dict(', '    methods=dict(', *lines, '    ),', ')'])


class _Done(Exception):
    """Enough was measured."""


class _MeasureHook(Hook):
    """Compares gradients in some steps of a run, and ends it."""

    def __init__(self, after: int, batches: int, methods: Sequence[str]) -> None:
        self.after, self.last = after, after + batches
        # The longest first, so that "fgd_fine" is not taken for a loss of "fgd".
        self.methods = sorted(methods, key=len, reverse=True)
        self.terms: dict[str, list[tuple[float, float, float]]] = {}
        self.of_methods: dict[str, list[tuple[float, float, float]]] = {}
        self.weights: dict[str, list[float]] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        model: Any = runner.model
        if runner.iter == self.last:
            raise _Done
        if runner.iter == self.after:
            model.step_observers.append(self._measure)

    def _measure(self, algorithm: DistillAlgorithm, losses: dict) -> None:
        task = float(algorithm.parse_losses(losses)[0].detach())
        terms = pulls_by_term(algorithm.distiller)
        grouped: dict[str, list[Pull]] = {}
        for name, pull in terms.items():
            grouped.setdefault(self._owner(name), []).append(pull)
        whole = {
            name: Pull(
                [item for pull in pulls for item in pull.values], [loss for pull in pulls for loss in pull.losses]
            )
            for name, pulls in grouped.items()
        }
        for found, pulls in ((self.terms, terms), (self.of_methods, whole)):
            for name, squares in algorithm.compare_gradients(losses, pulls).items():
                value = float(sum(item.detach() for item in pulls[name].values))
                found.setdefault(name, []).append((value / task if task else math.nan, *squares.tolist()))
        if algorithm.distiller.balance is not None:
            for name, weight in algorithm.distiller.balance.weights().items():
                self.weights.setdefault(name, []).append(float(weight))

    def _owner(self, term: str) -> str:
        return next((name for name in self.methods if f'{term}_'.startswith(f'loss_{name}_')), term)


def calibrate(config: Config, batches: int = 20, after: int = 50, share: float | None = None) -> Calibration:
    """Train a config for some iterations and compare gradients on the batches that follow.

    Nothing is written but to a temporary folder, nothing is validated, and the run's own random numbers, optimizer and
    schedules are used. The first iterations are left out because a student that has learned nothing misleads.

    Args:
        config: With a ``distill`` block.
        batches: How many batches are measured.
        after: How many iterations are trained before.
        share: The ratio that the gradient of all methods together shall have to that of the task loss, divided as in
            the block; by default that of the block, where the methods' own shares count too.

    Returns:
        What was found.

    Raises:
        DistillError: If the config distils nothing, or the run is too short.
    """
    if config.get('distill') is None:
        raise DistillError('The config has no distill block, so there is nothing to calibrate.')
    if min(batches, after + 1) < 1:
        raise DistillError(f'--batches {batches} --after {after} leaves nothing to measure; give at least 1 and 0.')
    cfg = on_one_process(_short(config))
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg)
        block = DistillBlock.parse(cfg.distill)
        if not block.methods:
            raise DistillError('Every method of the distill block has weight 0; give those to calibrate a weight.')
        hook = _MeasureHook(after, batches, list(block.methods))
        runner.register_hook(hook, 'VERY_HIGH')
        try:
            runner.train()
        except _Done:
            pass
    if not hook.terms:
        raise DistillError(
            f'The run ended after {runner.iter} iterations, before anything with a weight was measured; give a smaller '
            '--after, or look at the schedules of the methods.'
        )
    terms = {name: _mean(values) for name, values in hook.terms.items()}
    return Calibration(after, len(next(iter(hook.terms.values()))), terms, _methods(block, hook, share))


def _short(config: Config) -> Config:
    """The config without all that follows on training."""
    cfg = copy.deepcopy(config)
    for key in ('val', 'test'):
        cfg.update({f'{key}_cfg': None, f'{key}_dataloader': None, f'{key}_evaluator': None})
    hooks = {name: hook for name, hook in (cfg.get('default_hooks') or {}).items() if name != 'visualization'}
    cfg.default_hooks = {**hooks, 'checkpoint': None}
    cfg.visualizer = None
    cfg.resume = False
    cfg.experiment_name = f'calibrate_{uuid.uuid4().hex[:8]}'
    return cfg


def _methods(block: DistillBlock, hook: _MeasureHook, share: float | None) -> dict[str, MethodWeight]:
    """The weight of each method that gives it its share."""
    found = {}
    parts = divided(DistillBlock.default_share() if share is None else share, block.methods)
    for name, method in block.methods.items():
        values = hook.of_methods.get(name)
        if values is None:
            continue
        of_teacher = block.teachers[str(method.teacher)].loss_weight
        weights = hook.weights.get(name, [method.begins_with()])
        weight = statistics.geometric_mean(weights) / of_teacher
        measured = _mean(values)
        own = parts[name]
        if share is None and method.auto and method.share is not None:
            own = method.share / of_teacher
        wanted = weight * own / measured.gradient if measured.gradient > 0 else None
        inside = WEIGHT in (getattr(method, 'loss', None) or {})
        found[name] = MethodWeight(measured, weight, own, wanted, inside)
    return found


def _mean(values: Sequence[tuple[float, float, float]]) -> Measured:
    """The average over batches; those in which a gradient is missing or not finite are left out."""
    value = sum(item[0] for item in values) / len(values)
    logs = [
        (math.log(own) - math.log(task)) / 2
        for _, task, own in values
        if task > 0 and own > 0 and math.isfinite(task) and math.isfinite(own)
    ]
    if not logs:
        return Measured(value, math.nan, math.nan)
    mean = sum(logs) / len(logs)
    spread = math.sqrt(sum((item - mean) ** 2 for item in logs) / len(logs))
    return Measured(value, math.exp(mean), math.exp(spread))
