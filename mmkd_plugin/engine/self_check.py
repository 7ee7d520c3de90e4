"""Hook that looks at the first step of a distilled run and says what it found."""

from __future__ import annotations

import dataclasses
import io
from typing import Any, List, Optional, Tuple

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.engine.inspection import (
    AdversaryRow,
    StepReport,
    inspect_adversaries,
    inspect_step,
    look_at_pulls,
)
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import HOOKS


@HOOKS.register_module()
class SelfCheckHook(Hook):
    """Print one table at the first step and stop the run where distillation cannot work.

    The table holds the teacher's loaded weights, each recorder's shapes, each term per level with its share of the task
    loss, the gradient that reaches the student, and how large that is beside the task loss's. A term that is not finite
    or has no gradient, and a recorder that never fired, stop the run; a term that is exactly zero, dwarfs the task loss
    or is next to nothing beside its gradient is pointed out. Since the first step misleads, with a student that has
    learned nothing, gradients are compared once more later on.

    Args:
        again: How many iterations after the first step of the last loss gradients are compared again; 0 for not at all.
    """

    priority = 'LOWEST'
    _look_at_adversaries = False
    _due: Optional[int] = None

    def __init__(self, again: int = 100) -> None:
        self.again = again

    def before_train(self, runner: Runner) -> None:
        """Look at the first step of the training."""
        algorithm = algorithm_of(runner)
        if algorithm is None:
            return

        waiting = set(algorithm.distiller.loss_forward_mappings)

        def observe(algorithm: DistillAlgorithm, losses: dict) -> None:
            """Look at the first step, and again where a schedule lets further losses begin."""
            begun = waiting & set(algorithm.distiller.terms)
            if not begun:
                return
            waiting.difference_update(begun)
            if not waiting:
                algorithm.step_observers.remove(observe)
                self._due = runner.iter + self.again if self.again else None
            report = inspect_step(algorithm, losses)
            runner.logger.info(f'Distillation at the first step, iteration {runner.iter + 1}\n{step_text(report)}')
            _stop_on(report.faults)

        algorithm.step_observers.append(observe)
        self._look_at_adversaries = bool(algorithm.adversaries)

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Compare gradients again where it is time."""
        algorithm = algorithm_of(runner)
        if algorithm is None or self._due is None or runner.iter < self._due:
            return
        self._due = None

        def observe(algorithm: DistillAlgorithm, losses: dict) -> None:
            algorithm.step_observers.remove(observe)
            task = float(algorithm.parse_losses(losses)[0].detach())
            report = StepReport(task, [])
            look_at_pulls(algorithm, losses, report)
            runner.logger.info(f'Distillation at iteration {runner.iter + 1}\n{pulls_text(report)}')

        algorithm.step_observers.append(observe)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Describe the discriminators after their first step."""
        algorithm = algorithm_of(runner)
        if self._look_at_adversaries and algorithm is not None:
            self._look_at_adversaries = False
            rows, faults = inspect_adversaries(algorithm.adversaries)
            runner.logger.info(adversaries_text(rows))
            _stop_on(faults)


def step_text(report: StepReport) -> str:
    """The tables of a step."""
    records = _table('records', ('recorder', 'side', 'source', 'shape'))
    for record in report.records:
        records.add_row(*dataclasses.astuple(record))
    heads = ('loss', 'term', 'value', 'share of task loss', 'gradient at the student')
    terms = _table(f'terms, task loss {report.task:.4g}', heads, left=2)
    for row in report.terms:
        share = f'{100 * row.value / report.task:.2f} %' if report.task else '-'
        gradient = 'none' if row.gradient is None else f'{row.gradient:.3g}'
        terms.add_row(row.loss, row.term, f'{row.value:.4g}', share, gradient)
    return _text(*report.teachers, records, terms) + pulls_text(report)


def pulls_text(report: StepReport) -> str:
    """The table of gradients, and what is to be said."""
    heads = ('term', 'value / task loss', 'gradient / that of the task loss')
    pulls = _table('levels added up', heads, left=1)
    for row in report.pulls:
        pulls.add_row(row.term, *('-' if item is None else f'{item:.3g}' for item in (row.value, row.gradient)))
    return _text(pulls, *report.weights, *(f'note: {remark}' for remark in report.remarks))


def adversaries_text(rows: List[AdversaryRow]) -> str:
    """The table of the discriminators."""
    table = _table('discriminators', ('loss', 'parameters', 'optimizer', 'term', 'value'))
    for row in rows:
        table.add_row(row.loss, f'{row.parameters:,}', row.optimizer, row.term, f'{row.value:.4g}')
    return _text(table)


def _stop_on(faults: List[str]) -> None:
    """End the run where something cannot work."""
    if faults:
        raise DistillError('The self-check stops the run: ' + ' '.join(faults))


def _table(title: str, heads: Tuple[str, ...], left: Optional[int] = None) -> Table:
    """An empty table; the columns from ``left`` on hold numbers."""
    table = Table(title=title, title_justify='left')
    for index, head in enumerate(heads):
        table.add_column(head, justify='left' if left is None or index < left else 'right')
    return table


def _text(*parts: Any) -> str:
    """What a console of 140 columns would show."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=140, color_system=None)
    for part in parts:
        console.print(part)
    return buffer.getvalue()
