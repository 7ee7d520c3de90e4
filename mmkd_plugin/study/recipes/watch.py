"""Look at the step of a recipe: what each loss compares, what its terms are worth, and whether they teach."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.distillers import Distiller
from mmkd_plugin.distillers.entries import LEVEL
from mmkd_plugin.distillers.schedule import WeightSchedule
from mmkd_plugin.engine import DistillStateHook
from mmkd_plugin.engine.inspection import TermRow, inspect_adversaries, inspect_step
from mmkd_plugin.engine.state_hook import algorithm_of, require_begun
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.nested import tensors_of
from mmkd_plugin.utilities.text import without_prefix


@dataclasses.dataclass(frozen=True)
class Pair:
    """A feature or prediction of the student and what it is compared with.

    Attributes:
        strides: Of the maps of student and teacher, in pixels of the student's image; None for what is no map.
        channels: Channels of both, or columns of logits and boxes.
    """

    strides: tuple[int, int] | None
    channels: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class LossRow:
    """One loss, its levels together.

    Attributes:
        name: Its name, without the start that all losses have.
        pairs: What it compares.
        terms: Share of each term in the task loss, by name.
    """

    name: str
    pairs: tuple[Pair, ...]
    terms: dict[str, float]


class StepWatch(DistillStateHook):
    """Watches a run until each term has sent a gradient to the student, and ends it then.

    It takes the place of the hook that drives the schedules: every term has the full weight that its schedule gives it.

    Args:
        train_cfg: The loop of the recipe, whose length its schedules must fit.

    Attributes:
        student: Parameters of the student, from the start of the run on.
        teachers: Parameters of each teacher as it was given; its options may fold some away later.
        remarks: What is to be said of the run beside its terms.
    """

    def __init__(self, train_cfg: dict) -> None:
        self._loop = train_cfg
        self._found: dict[tuple[str, str], tuple[TermRow, float]] = {}
        self._pairs: dict[str, list[Pair]] = {}
        self._image = (0, 0)
        self.remarks: list[str] = []
        self.student = 0
        self.teachers: tuple[int, ...] = ()

    def before_train(self, runner: Runner) -> None:
        """Give every term its full weight, and look at each step."""
        algorithm = _algorithm(runner)
        self.student = _size(algorithm.student)
        self.teachers = tuple(_size(teacher.model) for teacher in algorithm.teachers.values())
        schedules = algorithm.distiller.schedules
        kind = str(self._loop.get('type', ''))
        counts_epochs = 'Iter' not in kind and self._loop.get('by_epoch', True)
        require_begun(schedules, self._loop.get('max_iters'), self._loop.get('max_epochs'), counts_epochs)
        self.remarks += [_waiting(name, item) for name, item in schedules.items() if item.start + item.warm_up]
        algorithm.distiller.schedules = {name: WeightSchedule() for name in schedules}
        algorithm.data_preprocessor.register_forward_hook(self._see_batch)
        algorithm.step_observers.append(self._look)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """End the run once every term has been seen at work.

        Raises:
            DistillError: If a term rests in every batch, or a discriminator is not finite.
        """
        faults = inspect_adversaries(_algorithm(runner).adversaries)[1]
        if faults:
            raise DistillError(' '.join(faults))
        resting = {key for key, (row, _) in self._found.items() if row.gradient == 0}
        everywhere = [name for name, levels in self._levels().items() if resting.issuperset(levels)]
        if not everywhere:
            runner.train_loop._max_iters = runner.iter + 1
            for name, levels in self._levels().items():
                places = [self._place(loss) for loss, term in levels if (loss, term) in resting]
                if places:
                    self.remarks.append(f'"{name}" is 0 in this batch at stride {", ".join(places)}.')
        elif runner.iter + 1 == runner.max_iters:
            value = self._found[self._levels()[everywhere[0]][0]][0].value
            raise DistillError(
                f'"{everywhere[0]}" is {value:.3g} and sends no gradient to the student in any of {runner.max_iters} '
                'batches; look at its settings, or at the module that its features are taken from.'
            )

    def rows(self) -> tuple[LossRow, ...]:
        """What was found, by loss."""
        terms: dict[str, dict[str, float]] = {}
        for (loss, term), (row, task) in self._found.items():
            of_loss = terms.setdefault(_base(loss), {})
            of_loss[term] = of_loss.get(term, 0.0) + (row.value / task if task else 0.0)
        pairs: dict[str, list[Pair]] = {}
        for loss, found in self._pairs.items():
            pairs.setdefault(_base(loss), []).extend(found)
        return tuple(LossRow(name, tuple(pairs[name]), each) for name, each in terms.items())

    def _see_batch(self, module: Any, inputs: Any, outputs: dict) -> None:
        batch = outputs['inputs']
        self._image = (batch.shape[-2], batch.shape[-1])

    def _look(self, algorithm: DistillAlgorithm, losses: dict) -> None:
        report = inspect_step(algorithm, losses)
        if report.faults:
            raise DistillError(' '.join(report.faults))
        for row in report.terms:
            known = self._found.get((row.loss, row.term))
            if known is None or not known[0].gradient:
                self._found[row.loss, row.term] = (row, report.task)
        for name in algorithm.distiller.terms:
            self._pairs[name] = _compared(algorithm.distiller, name, self._image[0])

    def _levels(self) -> dict[str, list[tuple[str, str]]]:
        """The levels of each term, by its name without one."""
        found: dict[str, list[tuple[str, str]]] = {}
        for loss, term in self._found:
            found.setdefault(f'{_base(loss)}.{term}' if term else _base(loss), []).append((loss, term))
        return found

    def _place(self, loss: str) -> str:
        """The stride of the level that a loss works on."""
        strides = next((pair.strides for pair in self._pairs[loss] if pair.strides is not None), None)
        return f'of level {loss.partition(LEVEL)[2]}' if strides is None else str(strides[0])


def _algorithm(runner: Runner) -> DistillAlgorithm:
    algorithm = algorithm_of(runner)
    assert algorithm is not None
    return algorithm


def _base(loss: str) -> str:
    """Name of a loss without its level and without what all begin with."""
    return without_prefix(loss.partition(LEVEL)[0], 'loss_')


def _waiting(name: str, schedule: WeightSchedule) -> str:
    """When a term gets the weight that it has in the check."""
    loss, _, term = name.partition('.')
    unit = 'epoch' if schedule.by_epoch else 'iteration'
    full = schedule.start + max(schedule.warm_up, 1)
    return f'"{_base(loss)}{term and "."}{term}" has its full weight from {unit} {full}; it is shown with that.'


def _compared(distiller: Distiller, name: str, height: int) -> list[Pair]:
    """What a loss compares in this step: what has a gradient, each with the teacher's record of the same order."""
    sides: dict[bool, list[tuple[int | None, int]]] = {True: [], False: []}
    for entry in distiller.loss_forward_mappings[name].values():
        for record in entry if isinstance(entry, list) else [entry]:
            at_student = record['from_student']
            where = {key: record[key] for key in ('recorder', 'record_idx', 'data_idx') if key in record}
            for tensor in tensors_of(distiller.get_record(from_student=at_student, **where)):
                if not tensor.is_floating_point() or tensor.dim() < 2 or (at_student and not tensor.requires_grad):
                    continue
                cells = _cells(distiller, record, tensor)
                sides[at_student].append((round(height / cells) if cells else None, tensor.shape[1]))
    return [
        # Predictions of the teacher have the student's cells.
        Pair(None if first is None else (first, second or first), (channels, others))
        for (first, channels), (second, others) in zip(sides[True], sides[False])
    ]


def _cells(distiller: Distiller, record: dict, tensor: Tensor) -> int | None:
    """Rows of the map that a record is or was; None for what has none, such as RoIs."""
    if tensor.dim() == 4:
        return tensor.shape[2]
    manager = distiller.student_recorders if record['from_student'] else distiller.teacher_recorders
    recorder: Any = manager.get_recorder(record['recorder'])
    return recorder.cells(record.get('record_idx', 0))[0] if hasattr(recorder, 'cells') else None


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
