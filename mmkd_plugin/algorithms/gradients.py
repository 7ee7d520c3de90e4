"""How strongly losses pull at the student: their gradients, compared at the features that they share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.utils import apply_to
from torch import Tensor, nn

from mmkd_plugin.distillers import Distiller
from mmkd_plugin.distillers.entries import logged_name
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.anatomy import trunk_name
from mmkd_plugin.utilities.clips import detector_path
from mmkd_plugin.utilities.distributed import mean_over_ranks
from mmkd_plugin.utilities.nested import tensors_of

_HALF_SCALE = 2.0**12
"""Gradients of single cells are too small for float16 otherwise; the ratio of two of them does not change."""


@dataclasses.dataclass(frozen=True)
class Pull:
    """Something whose gradient is compared with that of the task loss.

    Attributes:
        values: Terms that are added up, each a scalar; none where the batch gave none.
        losses: Names of the distiller's losses that they are from.
    """

    values: Sequence[Tensor]
    losses: Sequence[str]


def pulls_by_term(distiller: Distiller) -> dict[str, Pull]:
    """The weighted terms of this step, levels added up, by the names that are logged."""
    found: dict[str, tuple[list[Tensor], list[str]]] = {}
    for loss, terms in distiller.terms.items():
        for term, value in terms.items():
            values, losses = found.setdefault(logged_name(loss, term), ([], []))
            values.append(value)
            losses.append(loss)
    return {name: Pull(*parts) for name, parts in found.items()}


@contextlib.contextmanager
def shared_features(student: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Keep what the heads of a student work on: what its neck returns, or its backbone where it has no neck.

    Args:
        student: Any detector or segmentor.
        wanted: Whether to do so at all.

    Yields:
        The features, once the student has run.
    """
    features: list[Tensor] = []
    module = dict(student.named_modules()).get(trunk_name(student)) if wanted else None
    if module is None:
        yield features
        return

    def keep(_: nn.Module, __: tuple, outputs: object) -> None:
        features.extend(item for item in tensors_of(outputs) if item.requires_grad)

    handle = module.register_forward_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


@contextlib.contextmanager
def losses_inside(wrapper: nn.Module, student: nn.Module) -> Iterator[list[dict]]:
    """Keep a student's losses as they are before a wrapper gets them.

    A gradient that starts at what a sharding wrapper returns is a backward pass to it, behind which it frees the
    weights. One that starts before passes it by.

    Args:
        wrapper: What is called.
        student: What it wraps; where it is the same, nothing is kept.

    Yields:
        The losses, once the student has run; empty where there is no wrapper.
    """
    losses: list[dict] = []
    if wrapper is student:
        yield losses
        return

    def keep(_: nn.Module, __: tuple, outputs: dict) -> dict:
        losses.append(outputs)
        return apply_to(outputs, lambda item: isinstance(item, Tensor), lambda item: item.view_as(item))

    handle = student.register_forward_hook(keep)
    try:
        yield losses
    finally:
        handle.remove()


def compare_gradients(
    student: nn.Module, distiller: Distiller, task: Tensor, pulls: Mapping[str, Pull], shared: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Measure how strongly some terms pull, and how strongly the task loss does at the same place.

    The place is where the losses tap the student: their features in its backbone or neck. Losses that compare what
    heads predict pull at all that the heads work on. Gradients with respect to features touch no parameter, so that
    neither optimizers nor distributed wrappers notice. All ranks must call this together.

    Args:
        student: After its forward pass, while the graph exists.
        distiller: While the records of that pass exist.
        task: The student's own loss.
        pulls: By names of your choice.
        shared: What :func:`shared_features` gave.

    Returns:
        The squared norms of the task loss's gradient and of its own, ``(2,)``, by the name of the pull, averaged over
        ranks; without those that no gradient could be taken of.

    Raises:
        DistillError: If the graph does not allow that.
    """
    taps = {name: _place(student, distiller, pull.losses, shared) for name, pull in pulls.items()}
    union = _unique([feature for features in taps.values() for feature in features])
    of_task = dict(zip(map(id, union), _squares(task, union)))
    zero = torch.zeros((), device=task.device)
    found = []
    for name, pull in pulls.items():
        own = _squares(sum(pull.values, zero), taps[name])
        found.append(torch.stack([sum((of_task[id(item)] for item in taps[name]), zero), sum(own, zero)]))
    if not found:
        return {}
    return dict(zip(pulls, mean_over_ranks(torch.stack(found)).unbind()))


def _place(student: nn.Module, distiller: Distiller, losses: Sequence[str], shared: Sequence[Tensor]) -> list[Tensor]:
    """The features at which some losses pull."""
    inner = detector_path(student)
    found: list[Tensor] = []
    for loss in losses:
        for source, feature in distiller.student_taps(loss):
            if f'{source}.'.startswith((f'{inner}backbone.', f'{inner}neck.')):
                found.append(feature)
            elif feature.requires_grad:
                found.extend(shared)
    return _unique([feature for feature in found if feature.requires_grad])


def _unique(features: Sequence[Tensor]) -> list[Tensor]:
    return list({id(feature): feature for feature in features}.values())


def _squares(value: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    """The squared norm of a gradient at each feature, 0 where none arrives."""
    zero = torch.zeros((), device=value.device)
    if not value.requires_grad or not features:
        return [zero for _ in features]
    scale = _HALF_SCALE if any(feature.dtype is torch.float16 for feature in features) else 1.0
    try:
        with torch.autocast(value.device.type, enabled=False):
            gradients = torch.autograd.grad(scale * value, features, retain_graph=True, allow_unused=True)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise DistillError(
            "Gradients cannot be compared in the middle of a step here, as loss_weight='auto' and the self-check do "
            f'({str(error).splitlines()[0]}); give loss_weight a number and set distill.self_check=False, or take '
            'reentrant checkpointing (with_cp) and compilation off the neck and the heads.'
        ) from error
    return [zero if item is None else (item.float().norm() / scale).square() for item in gradients]
