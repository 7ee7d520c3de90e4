"""Hook that looks at the first step of a distilled run and says what it found."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.algorithms.adversary import Adversary
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import HOOKS

DWARFS = 10.0
"""A term larger than the task loss by this factor is pointed out."""


@HOOKS.register_module()
class SelfCheckHook(Hook):
    """Print one table at the first step and stop the run where distillation cannot work.

    The table holds the teacher's loaded weights, each recorder's shapes, each term per level with its share of the task
    loss, and the gradient that reaches the student. A term that is not finite or has no gradient, and a recorder that
    never fired, stop the run; a term that is exactly zero or dwarfs the task loss is pointed out.
    """

    priority = 'LOWEST'
    _look_at_adversaries = False

    def before_train(self, runner: Runner) -> None:
        """Ask the algorithm to be looked at once."""
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
            text, faults = inspect_step(algorithm, losses)
            runner.logger.info(f'Distillation at the first step, iteration {runner.iter + 1}\n{text}')
            if faults:
                raise DistillError('The self-check stops the run: ' + ' '.join(faults))

        algorithm.step_observers.append(observe)
        self._look_at_adversaries = bool(algorithm.adversaries)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Describe the discriminators after their first step."""
        algorithm = algorithm_of(runner)
        if self._look_at_adversaries and algorithm is not None:
            self._look_at_adversaries = False
            text, faults = inspect_adversaries(algorithm.adversaries)
            runner.logger.info(text)
            if faults:
                raise DistillError('The self-check stops the run: ' + ' '.join(faults))


def inspect_adversaries(adversaries: dict[str, Adversary]) -> tuple[str, list[str]]:
    """Describe the discriminators after a step of theirs.

    Args:
        adversaries: By the name of the loss.

    Returns:
        The table as text, and a sentence for each fault.
    """
    table = Table(title='discriminators', title_justify='left')
    for column in ('loss', 'parameters', 'optimizer', 'term', 'value'):
        table.add_column(column)
    faults = []
    for name, adversary in adversaries.items():
        size = sum(parameter.numel() for parameter in adversary.discriminator.parameters())
        for term, value in adversary.terms.items():
            number = float(value)
            table.add_row(name, f'{size:,}', type(adversary.wrapper.optimizer).__name__, term, f'{number:.4g}')
            if not math.isfinite(number):
                faults.append(f'The "{term}" of the discriminator of "{name}" is {number}; lower its learning rate.')
    buffer = io.StringIO()
    Console(file=buffer, width=140, color_system=None).print(table)
    return buffer.getvalue(), faults


def inspect_step(algorithm: DistillAlgorithm, losses: dict) -> tuple[str, list[str]]:
    """Describe a step while its records and graph still exist.

    Args:
        algorithm: After the losses were computed, before the records are released.
        losses: The student's losses.

    Returns:
        The tables as text, and a sentence for each fault.
    """
    distiller = algorithm.distiller
    task = float(algorithm.parse_losses(losses)[0].detach())
    faults: list[str] = []
    remarks: list[str] = []
    cut: list[str] = []
    shapes = Table(title='records', title_justify='left')
    for column in ('recorder', 'side', 'source', 'shape'):
        shapes.add_column(column)
    for side, manager in (('student', distiller.student_recorders), ('teacher', distiller.teacher_recorders)):
        read = distiller.recorders_read(side == 'student')
        for name, recorder in manager.recorders.items():
            if name not in read:
                continue
            if not recorder.data_buffer:
                faults.append(f'The {side} recorder "{name}" never fired; name a module that the forward pass calls.')
                continue
            record = recorder.get_record_data()
            shapes.add_row(name, side, recorder.source or '(the batch)', _shape(record))
    terms = Table(title=f'terms, task loss {task:.4g}', title_justify='left')
    for column in ('loss', 'term', 'value', 'share of task loss', 'gradient at the student'):
        terms.add_column(column, justify='left' if column in ('loss', 'term') else 'right')
    for name, values in distiller.terms.items():
        features = distiller.student_features(name)
        for term, value in values.items():
            label = f'{name}.{term}' if term else name
            number = float(value.detach())
            gradient = _gradient(value, features)
            terms.add_row(
                name,
                term,
                f'{number:.4g}',
                f'{100 * number / task:.2f} %' if task else '-',
                'none' if gradient is None else f'{gradient:.3g}',
            )
            if not math.isfinite(number):
                faults.append(
                    f'"{label}" is {number}; lower its weight or look for values that overflow in the records.'
                )
            elif gradient is None:
                cut.append(f'"{label}"')
            elif number == 0:
                remarks.append(f'"{label}" is exactly 0 in this batch.')
            elif task and abs(number) > DWARFS * abs(task):
                remarks.append(f'"{label}" is {number / task:.0f} times the task loss; its weight may be too large.')
    if cut:
        rest = f' and {len(cut) - 1} more terms send' if len(cut) > 1 else ' sends'
        faults.append(
            f'{cut[0]}{rest} no gradient to the student; take the feature from a module that is trained and lies '
            'outside reentrant checkpointing (with_cp=False).'
        )
    buffer = io.StringIO()
    console = Console(file=buffer, width=140, color_system=None)
    for teacher in algorithm.teachers.values():
        console.print(teacher.report)
    console.print(shapes)
    console.print(terms)
    for remark in remarks:
        console.print(f'note: {remark}')
    return buffer.getvalue(), faults


def _gradient(value: Tensor, features: list[Tensor]) -> float | None:
    """Norm of a term's gradient at the student's features, None where there is none."""
    wanted = [feature for feature in features if feature.requires_grad]
    if not value.requires_grad or not wanted:
        return None
    gradients = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
    found = [gradient for gradient in gradients if gradient is not None]
    return float(torch.stack([gradient.float().norm() for gradient in found]).norm()) if found else None


def _shape(record: object) -> str:
    """Shapes of a record in words."""
    if isinstance(record, Tensor):
        return ' x '.join(str(size) for size in record.shape)
    if isinstance(record, (tuple, list)):
        return ', '.join(_shape(item) for item in record)
    return type(record).__name__
