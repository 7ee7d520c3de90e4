"""Look at a step while its records and graph still exist: what was recorded, what each term is worth, what is wrong."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.algorithms.adversary import Adversary
from mmkd_plugin.algorithms.gradients import pulls_by_term

DWARFS = 10.0
"""A term larger than the task loss by this factor is pointed out."""
FAINT = 0.01
"""So is one whose gradient is smaller than this share of the task loss's."""


@dataclasses.dataclass(frozen=True)
class RecordRow:
    """What one recorder took."""

    recorder: str
    side: str
    source: str
    shape: str


@dataclasses.dataclass(frozen=True)
class TermRow:
    """One weighted term of one loss.

    Attributes:
        loss: Name of the loss.
        term: Name of the term; empty where the loss gives one number.
        value: Its value.
        gradient: Norm of its gradient at the student's features, None where none arrives.
    """

    loss: str
    term: str
    value: float
    gradient: Optional[float]

    @property
    def name(self) -> str:
        """Loss and term."""
        return f'{self.loss}.{self.term}' if self.term else self.loss


@dataclasses.dataclass(frozen=True)
class PullRow:
    """How strongly a term pulls at the student, levels added up.

    Attributes:
        term: Its name in the log.
        value: In the value of the task loss, None where that is 0.
        gradient: In the gradient of the task loss, None where that is 0 or not finite.
    """

    term: str
    value: Optional[float]
    gradient: Optional[float]


@dataclasses.dataclass
class StepReport:
    """What was found in a step.

    Attributes:
        task: The student's own loss.
        teachers: What was loaded into each teacher, a sentence each.
        records: A row for each recorder that was read.
        terms: A row for each term.
        pulls: A row for each term, levels added up.
        weights: What the weights that find themselves have come to, a sentence each.
        remarks: What is worth a look, a sentence each.
        faults: What cannot work, a sentence each.
    """

    task: float
    teachers: List[str]
    records: List[RecordRow] = dataclasses.field(default_factory=list)
    terms: List[TermRow] = dataclasses.field(default_factory=list)
    pulls: List[PullRow] = dataclasses.field(default_factory=list)
    weights: List[str] = dataclasses.field(default_factory=list)
    remarks: List[str] = dataclasses.field(default_factory=list)
    faults: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class AdversaryRow:
    """One term of a discriminator."""

    loss: str
    parameters: int
    optimizer: str
    term: str
    value: float


def inspect_step(algorithm: DistillAlgorithm, losses: Dict[str, Any]) -> StepReport:
    """Describe a step while its records and graph still exist.

    Args:
        algorithm: After the losses were computed, before the records are released.
        losses: The student's losses.

    Returns:
        What was found.
    """
    task = float(algorithm.parse_losses(losses)[0].detach())
    report = StepReport(task, [item for teacher in algorithm.teachers.values() for item in teacher.sentences()])
    _look_at_records(algorithm, report)
    _look_at_terms(algorithm, report)
    if not report.faults:
        look_at_pulls(algorithm, losses, report)
    return report


def look_at_pulls(algorithm: DistillAlgorithm, losses: Dict[str, Any], report: StepReport) -> None:
    """How strongly each term pulls, which of them hardly do, and the weights that find themselves.

    Args:
        algorithm: After the losses were computed, before the records are released.
        losses: The student's losses.
        report: Gets the rows and sentences.
    """
    pulls = pulls_by_term(algorithm.distiller)
    for name, squares in algorithm.compare_gradients(losses, pulls).items():
        value = float(sum(item.detach() for item in pulls[name].values))
        task, own = squares.sqrt().tolist()
        gradient = own / task if task and math.isfinite(own / task) else None
        report.pulls.append(PullRow(name, value / report.task if report.task else None, gradient))
    faint = [row for row in report.pulls if row.gradient is not None and 0 < row.gradient < FAINT]
    if faint:
        names = ', '.join(f'"{row.term}" ({100 * (row.gradient or 0):.2g} %)' for row in faint)
        report.remarks.append(
            f'Next to nothing beside the gradient of the task loss: {names}; raise the weight, or take out what should '
            "not weigh anything. loss_weight='auto' finds the weight of a method."
        )
    balance = algorithm.distiller.balance
    if balance is not None:
        for name, weight in balance.weights().items():
            share = balance.methods[name].share
            report.weights.append(
                f'The loss_weight=\'auto\' of "{name}" is {float(weight):.4g} now, for a share of {share:g}.'
            )
        for name in balance.at_bound():
            report.remarks.append(
                f'The weight of "{name}" has come as far from its default as it may; look whether its loss has a '
                'gradient to speak of, or give loss_weight a number.'
            )


def inspect_adversaries(adversaries: Dict[str, Adversary]) -> Tuple[List[AdversaryRow], List[str]]:
    """Describe the discriminators after their own step.

    Args:
        adversaries: By the name of the loss.

    Returns:
        A row for each term, and a sentence for each fault.
    """
    rows, faults = [], []
    for name, adversary in adversaries.items():
        size = sum(parameter.numel() for parameter in adversary.discriminator.parameters())
        for term, value in adversary.terms.items():
            row = AdversaryRow(name, size, type(adversary.wrapper.optimizer).__name__, term, float(value))
            rows.append(row)
            if not math.isfinite(row.value):
                faults.append(f'The "{term}" of the discriminator of "{name}" is {row.value}; lower its learning rate.')
    return rows, faults


def _look_at_records(algorithm: DistillAlgorithm, report: StepReport) -> None:
    """What each recorder took; one that never fired is a fault."""
    distiller = algorithm.distiller
    for side, manager in (('student', distiller.student_recorders), ('teacher', distiller.teacher_recorders)):
        read = distiller.recorders_read(side == 'student')
        for name, recorder in manager.recorders.items():
            if name not in read:
                continue
            if not recorder.data_buffer:
                report.faults.append(
                    f'The {side} recorder "{name}" never fired; name a module that the forward pass calls.'
                )
                continue
            shape = _shape(recorder.get_record_data())
            report.records.append(RecordRow(name, side, recorder.source or '(the batch)', shape))


def _look_at_terms(algorithm: DistillAlgorithm, report: StepReport) -> None:
    """Value and gradient of each term, and what is to be said of them."""
    for name, values in algorithm.distiller.terms.items():
        features = algorithm.distiller.student_features(name)
        for term, value in values.items():
            report.terms.append(TermRow(name, term, float(value.detach()), _gradient(value, features)))
    cut = []
    for row in report.terms:
        if not math.isfinite(row.value):
            report.faults.append(
                f'"{row.name}" is {row.value}; lower its weight or look for values that overflow in the records.'
            )
        elif row.gradient is None:
            cut.append(f'"{row.name}"')
        elif row.value == 0:
            report.remarks.append(f'"{row.name}" is exactly 0 in this batch.')
        elif report.task and abs(row.value) > DWARFS * abs(report.task):
            report.remarks.append(
                f'"{row.name}" is {row.value / report.task:.0f} times the task loss; its weight may be too large.'
            )
    if cut:
        rest = f' and {len(cut) - 1} more terms send' if len(cut) > 1 else ' sends'
        report.faults.append(
            f'{cut[0]}{rest} no gradient to the student; take the feature from a module that is trained and lies '
            'outside reentrant checkpointing (with_cp=False).'
        )


def _gradient(value: Tensor, features: List[Tensor]) -> Optional[float]:
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
    if isinstance(record, dict):
        return ', '.join(f'{name} {_shape(item)}' for name, item in record.items())
    return '-' if record is None else type(record).__name__
