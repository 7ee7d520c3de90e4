"""MMRazor's own algorithm with losses that are equal to those of a block, where it has such losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Callable

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.compat.razor import BaseAlgorithm
from mmkd_plugin.teachers import build_teacher
from mmkd_plugin.teachers.images import Renormalise

Shapes = Mapping[str, Mapping[str, tuple]]
"""Of the tensors that each loss compares, by its name and that of the argument."""


class NoEquivalent(Exception):
    """MMRazor cannot do the same; the text says why, in half a sentence."""


class Look:
    """A look at one step of the algorithm: the shapes that its losses compare, and where they pull the student.

    Args:
        algorithm: Within its training.
        data: The preprocessed batch, as the algorithm is called with it.
    """

    def __init__(self, algorithm: DistillAlgorithm, data: dict) -> None:
        self.shapes: dict[str, dict[str, tuple]] = {}
        algorithm.step_observers.append(self._see)
        try:
            self.pull = pull_of(algorithm, data)
        finally:
            algorithm.step_observers.remove(self._see)

    def _see(self, algorithm: DistillAlgorithm, losses: dict) -> None:
        distiller = algorithm.distiller
        for name, mapping in distiller.loss_forward_mappings.items():
            plain = {key: _plain(entry) for key, entry in mapping.items() if isinstance(entry, dict)}
            records = {key: distiller.get_record(**entry) for key, entry in plain.items()}
            self.shapes[name] = {key: tuple(item.shape) for key, item in records.items() if isinstance(item, Tensor)}


def pull_of(algorithm: Any, data: dict) -> Tensor:
    """The gradient of the distillation terms in the student's weights, as one vector.

    Args:
        algorithm: Ours or MMRazor's.
        data: The preprocessed batch.
    """
    torch.manual_seed(0)
    losses = algorithm(**data, mode='loss')
    terms = [value for name, value in losses.items() if name.startswith('distill.') and 'loss' in name]
    weights = [item for item in algorithm.architecture.parameters() if item.requires_grad]
    found = torch.autograd.grad(torch.stack([term.sum() for term in terms]).sum(), weights, allow_unused=True)
    return torch.cat([torch.zeros(1), *(item.detach().flatten().cpu().float() for item in found if item is not None)])


def razor_algorithm(student: BaseModel, model: ConfigDict, shapes: Shapes) -> BaseAlgorithm:
    """MMRazor's ``SingleTeacherDistill`` for a student.

    Args:
        student: The student.
        model: Config of the ``DistillAlgorithm`` that it is to equal.
        shapes: See :class:`Look`.

    Raises:
        NoEquivalent: If MMRazor has no such loss, or does not prepare it in the same way.
    """
    distiller = equivalent(model, shapes)
    (options,) = model.teachers.values()
    teacher = build_teacher(
        options.teacher,
        options.get('teacher_ckpt'),
        options.get('trust_checkpoint', False),
        options.get('teacher_prefix'),
    ).model
    if Renormalise.between(student.data_preprocessor, getattr(teacher, 'data_preprocessor', None)) is not None:
        raise NoEquivalent('MMRazor shows the teacher the images in the normalisation of the student')
    with ROOT_MODELS.switch_scope_and_registry('mmrazor') as registry:
        algorithm = registry.build(
            dict(type='SingleTeacherDistill', architecture=student, teacher=teacher, distiller=distiller)
        )
    algorithm._is_init = True
    return algorithm


def equivalent(model: ConfigDict, shapes: Shapes) -> dict:
    """Config of a ``ConfigurableDistiller`` that compares the same with MMRazor's own recorders and losses.

    Args:
        model: As for :func:`razor_algorithm`.
        shapes: As there.

    Raises:
        NoEquivalent: As there.
    """
    model = copy.deepcopy(model)
    if len(model.teachers) > 1:
        raise NoEquivalent('MMRazor takes one teacher')
    if next(iter(model.teachers.values())).get('teacher_scale', 1) != 1:
        raise NoEquivalent('MMRazor shows the teacher images of the size of the student')
    if model.distiller.get('balance'):
        raise NoEquivalent('MMRazor finds no weights by itself')
    losses, mappings = {}, {}
    for name, loss in model.distiller.distill_losses.items():
        losses[name], names = _loss(loss, shapes[name])
        mapping = model.distiller.loss_forward_mappings[name]
        mappings[name] = {names.get(key, key): _entry(mapping, key, shapes[name]) for key in mapping}
    if model.get('student_loss_weights'):
        raise NoEquivalent('MMRazor gives the losses of the student no weights')
    return dict(
        type='ConfigurableDistiller',
        student_recorders={key: _recorder(item) for key, item in model.distiller.student_recorders.items()},
        teacher_recorders={key: _recorder(item) for key, item in model.distiller.teacher_recorders.items()},
        connectors=dict(model.distiller.get('connectors') or {}),
        distill_losses=losses,
        loss_forward_mappings=mappings,
    )


def _loss(config: dict, shapes: Mapping[str, tuple]) -> tuple[dict, dict[str, str]]:
    """MMRazor's loss, and its names of the arguments that are called otherwise here."""
    scope, _, kind = str(config['type']).rpartition('.')
    if scope == 'mmrazor':
        return dict(config), {}
    translate = _LOSSES.get(kind) if scope == 'mmkd_plugin' else None
    if translate is None:
        raise NoEquivalent(f'MMRazor has no {kind}')
    built = ROOT_MODELS.build(dict(config))
    return translate(built, shapes['student'])


def _pixel_wise(loss: Any, shape: tuple) -> tuple[dict, dict[str, str]]:
    """The mean over pixels, or another, of the divergence; the constant entropy of the teacher is left out."""
    images, classes, height, width = shape
    # MMRazor's divides by the images alone.
    count = {'pixel_mean': 1, 'batch_sum': 1 / images, 'element_mean': classes}[loss.reduction] * height * width
    weight = loss.weight / count / loss.temperature**2
    config = dict(type='KLDivergence', tau=loss.temperature, reduction='batchmean', loss_weight=weight)
    return config, dict(student='preds_S', teacher='preds_T')


def _hint(loss: Any, shape: tuple) -> tuple[dict, dict[str, str]]:
    """The mean of the squared or absolute differences, or their sum."""
    names = dict(student='s_feature', teacher='t_feature')
    if loss.norm == 'l2':
        weight = loss.weight * (shape[0] if loss.reduction == 'sum' else 1)
        mean = loss.reduction == 'mean'
        return dict(type='L2Loss', normalize=False, div_element=mean, loss_weight=weight), names
    weight = loss.weight / (shape[0] if loss.reduction == 'batchmean' else 1)
    reduction = 'mean' if loss.reduction == 'mean' else 'sum'
    return dict(type='L1Loss', reduction=reduction, loss_weight=weight), names


_LOSSES: dict[str, Callable[[Any, tuple], tuple[dict, dict[str, str]]]] = {
    'PixelWiseLoss': _pixel_wise,
    'ChenHintLoss': _hint,
}
"""Losses of ours that MMRazor has under another name."""


def _entry(mapping: Mapping[str, Any], key: str, shapes: Mapping[str, tuple]) -> dict:
    """Where an argument comes from, in MMRazor's keys."""
    entry = mapping[key]
    if not isinstance(entry, dict):
        raise NoEquivalent('MMRazor hands no lists of records to a loss')
    other = entry.get('like')
    if other is not None and shapes[key][2:] != shapes[other][2:]:
        raise NoEquivalent('MMRazor brings maps to no common size')
    return _plain(entry)


def _plain(entry: Mapping[str, Any]) -> dict:
    """An entry without what our distiller adds to MMRazor's keys."""
    return {key: value for key, value in entry.items() if key not in ('like', 'align_corners')}


def _recorder(config: Mapping[str, Any]) -> dict:
    """MMRazor's recorder of the same."""
    kind = str(config['type']).rpartition('.')[2]
    if kind != 'ModuleOutput' or config.get('direct'):
        raise NoEquivalent(f'MMRazor records nothing like {kind}')
    return dict(type='ModuleOutputs', source=config['source'])


def settled(algorithm: nn.Module) -> None:
    """Put the teacher of MMRazor, whose dropout it leaves on, into the mode that ours is in."""
    algorithm.get_submodule('teacher').eval()
