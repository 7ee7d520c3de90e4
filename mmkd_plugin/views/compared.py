"""The feature maps that a step compares, as its losses get them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mmkd_plugin.distillers.distiller import Distiller
from mmkd_plugin.distillers.entries import LEVEL
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.methods.fgd import FGDLoss
from mmkd_plugin.probe.watch import is_map
from mmkd_plugin.utilities.rng import isolated_rng
from mmkd_plugin.utilities.text import without_prefix

_Loss = TypeVar('_Loss', bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class Compared:
    """One map of both models.

    Attributes:
        student: The student's own, ``(N, C, H, W)``, float32.
        adapted: The same as its loss gets it, behind the connector; the same tensor where there is none.
        teacher: The teacher's, in the size of ``adapted``.
    """

    student: Tensor
    adapted: Tensor
    teacher: Tensor

    @property
    def connected(self) -> bool:
        """Whether a connector stands between."""
        return self.adapted is not self.student


def compared_losses(distiller: Distiller, method: str | None = None) -> list[str]:
    """The losses of one method that compare a record of the student with one of the teacher.

    Args:
        distiller: Of the algorithm.
        method: The method's name in the block; by default FGD, or else the first that compares such records.

    Raises:
        DistillError: If no method compares any, or the one that is named does not.
    """
    groups: dict[str, list[str]] = {}
    for loss in distiller.distill_losses:
        groups.setdefault(without_prefix(loss.partition(LEVEL)[0], 'loss_'), []).append(loss)
    groups = {
        name: found
        for name, losses in groups.items()
        if (found := [loss for loss in losses if _pairs(distiller.loss_forward_mappings[loss])])
    }
    if method is not None:
        chosen = [name for name in groups if name == method or name.startswith(f'{method}_')]
        if not chosen:
            raise DistillError(f'No method "{method}" of the distill block compares maps: {nearest(method, groups)}')
        return [loss for name in chosen for loss in groups[name]]
    if not groups:
        raise DistillError(
            'No method of the distill block compares feature maps of both models, so there is nothing to show; add '
            "one that does, such as dict(type='FGD')."
        )
    of_fgd = [losses for losses in groups.values() if isinstance(distiller.distill_losses[losses[0]], FGDLoss)]
    return (of_fgd or list(groups.values()))[0]


@torch.no_grad()
def compared_maps(distiller: Distiller, losses: Sequence[str]) -> list[Compared]:
    """What some losses compare, of the records that are there.

    Neither the weights nor the statistics of connectors change, and the run's random numbers stay as they are.

    Args:
        distiller: Holds the records of a step.
        losses: Names of the losses, as :func:`compared_losses` gives them.

    Returns:
        A map for each pair of records, in the order of the losses; empty where nothing that they read is a map
        ``(N, C, H, W)``.
    """
    found = []
    with isolated_rng(), evaluating(distiller):
        for loss in losses:
            mapping = distiller.loss_forward_mappings[loss]
            for of_student, of_teacher in _pairs(mapping):
                entries = [*_listed(mapping[of_student]), *_listed(mapping[of_teacher])]
                if not all(_recorded(distiller, entry) for entry in entries):
                    continue
                arguments = distiller.arguments(loss, (of_student, of_teacher))
                adapted, teachers = _listed(arguments[of_student]), _listed(arguments[of_teacher])
                for entry, own, teacher in zip(_listed(mapping[of_student]), adapted, teachers):
                    if is_map(own) and is_map(teacher):
                        own, teacher = own.float(), teacher.float()
                        plain = _plain(distiller, entry).float() if entry.get('connector') else own
                        found.append(Compared(plain, own, teacher))
    return found


def connectors_of(distiller: Distiller, losses: Sequence[str]) -> list[str]:
    """The connectors behind which some losses see the student."""
    mappings = [distiller.loss_forward_mappings[loss] for loss in losses]
    entries = [entry for mapping in mappings for value in mapping.values() for entry in _listed(value)]
    return sorted({entry['connector'] for entry in entries if entry.get('connector')})


def temperature_of(distiller: Distiller, losses: Sequence[str]) -> float:
    """The temperature of FGD's attention, that of the paper where the losses are others."""
    loss: Any = distiller.distill_losses[losses[0]]
    return loss.temperature if isinstance(loss, FGDLoss) else 0.5


def losses_of(distiller: Distiller, kind: type[_Loss]) -> Iterator[tuple[_Loss, dict[str, Any]]]:
    """The losses of one kind that a step has, each with what it is called with.

    Neither the weights nor the statistics of connectors change, and the run's random numbers stay as they are.

    Args:
        distiller: Holds the records of a step.
        kind: Their class.
    """
    with isolated_rng(), evaluating(distiller):
        for name in distiller.active_losses():
            loss = distiller.distill_losses[name]
            if isinstance(loss, kind):
                yield loss, distiller.arguments(name)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block with a model in evaluation mode and put each module's own mode back."""
    training = [module for module in model.modules() if module.training]
    # Not in a chain: detectors that override train() return nothing from it.
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _pairs(mapping: dict[str, Any]) -> list[tuple[str, str]]:
    """The arguments of a loss that are brought to one size, the student's first."""
    pairs = []
    for key, entry in mapping.items():
        other = _listed(entry)[0].get('like')
        if other is not None and _of_student(entry) != _of_student(mapping[other]):
            pairs.append((key, other) if _of_student(entry) else (other, key))
    return pairs


def _of_student(entry: Any) -> bool:
    return _listed(entry)[0]['from_student']


def _recorded(distiller: Distiller, entry: dict[str, Any]) -> bool:
    """Whether a record is there; without a loss of their own, auxiliary heads do not run."""
    manager = distiller.student_recorders if entry['from_student'] else distiller.teacher_recorders
    return len(manager.get_recorder(entry['recorder']).data_buffer) > entry.get('record_idx', 0)


def _plain(distiller: Distiller, entry: dict[str, Any]) -> Tensor:
    """A record before its connector."""
    where = {key: entry[key] for key in ('recorder', 'from_student', 'record_idx', 'data_idx') if key in entry}
    return distiller.get_record(**where)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
