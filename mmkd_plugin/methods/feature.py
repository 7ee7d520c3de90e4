"""Any loss between a student and a teacher feature in the ``distill`` block."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Literal, Union

from mmengine.registry import MODELS as ROOT_MODELS

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.probe.models import LevelPair, ModelPair
from mmkd_plugin.registry import MODELS

_WIDTHS = (('in_channels', 'in_channel', 'student_channels'), ('out_channels', 'out_channel', 'teacher_channels'))
"""What connectors call the student's and the teacher's number of channels."""


@dataclasses.dataclass
class Feature(Method):
    """MMRazor's losses and others that take one student and one teacher feature; one loss per level.

    Attributes:
        loss: Config of the loss; a ``type`` without scope is looked up in the plugin, then in MMRazor.
        tap: ``'output'`` (what the neck returns), ``'pre_norm'`` (each level's last convolution), the path of a module,
            or ``dict(student=path, teacher=path)``. A module that is called several times gives several levels.
        levels: How many levels to compare, from the finest; all by default.
        adapt: A 1x1 convolution at the student: ``'auto'`` where widths differ, ``'always'`` or ``'never'``; or the
            config of another connector, whose channels are filled in.
        same_classes: Whether the channels are classes, so that a teacher of other classes is refused.
    """

    loss: dict = dataclasses.field(default_factory=dict)
    tap: Union[str, dict] = 'output'  # noqa: UP007
    levels: Union[int, None] = None  # noqa: UP007
    adapt: Union[Literal['auto', 'always', 'never'], dict] = 'auto'  # noqa: UP007
    same_classes: bool = False

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss per level, each with its own connector."""
        where = f'distill.methods.{name}'
        config, arguments = self._loss(where)
        parts = Parts(same_classes=self.same_classes)
        for index, level in enumerate(self._levels(where, models)[: self.levels]):
            loss = f'loss_{name}_level{index}'
            if self.same_classes and level.student.channels != level.teacher.channels:
                raise DistillError(
                    f'The channels of "{level.student.source}" are classes, {level.student.channels} of the student '
                    f'and {level.teacher.channels} of the teacher; choose a teacher of the same classes.'
                )
            student, teacher = parts.record_level(
                loss, level, always=self.adapt == 'always', adapt=self.adapt in ('auto', 'always')
            )
            if isinstance(self.adapt, dict):
                parts.connectors[loss] = _connector(self.adapt, level, f'{where}.adapt')
                student['connector'] = loss
            parts.distill_losses[loss] = dict(config)
            parts.loss_forward_mappings[loss] = dict(zip(arguments, (student, dict(teacher, like=arguments[0]))))
        return parts

    def _levels(self, where: str, models: ModelPair) -> list[LevelPair]:
        """The taps of both models, matched by stride."""
        if self.levels is not None and self.levels < 1:
            raise DistillError(f'"{where}.levels" is {self.levels}; it must be at least 1.')
        if self.tap in ('output', 'pre_norm'):
            return models.levels(self.tap)
        paths = self.tap if isinstance(self.tap, dict) else dict(student=self.tap, teacher=self.tap)
        if {key for key in paths if key != '_scope_'} != {'student', 'teacher'}:
            raise DistillError(
                f'"{where}.tap" is {self.tap!r}; as a dict it must be dict(student=<module path>, '
                'teacher=<module path>).'
            )
        return models.match(models.student.calls(paths['student']), models.teacher.calls(paths['teacher']))

    def _loss(self, where: str) -> tuple[dict[str, Any], tuple[str, str]]:
        """The loss's config with its full name and weight, and the names under which it takes the two features."""
        if 'type' not in self.loss:
            raise DistillError(f'"{where}.loss" must be a dict with a "type", for instance dict(type=\'PKDLoss\').')
        config = {key: value for key, value in self.loss.items() if key != '_scope_'}
        kind, config['type'] = _find(config['type'], f'{where}.loss.type', 'losses')
        if self.weight != 1:
            weight = inspect.signature(kind).parameters.get('loss_weight')
            if weight is None:
                raise DistillError(
                    f'{config["type"]} has no loss_weight that "{where}.weight" could multiply; leave it out and set '
                    f"the loss's own weight in {where}.loss."
                )
            config['loss_weight'] = self.weight * config.get('loss_weight', weight.default)
        return config, _arguments(kind, config['type'])


def _arguments(kind: Any, name: str) -> tuple[str, str]:
    """Names of a loss's two features, the student's first.

    Raises:
        DistillError: If the loss takes more or less than two features.
    """
    parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(required) != 2:
        raise DistillError(
            f'{name} takes ({", ".join(required)}), not one student and one teacher feature; choose a loss of two '
            'features.'
        )
    first, second = required
    return (second, first) if _of_teacher(first) and not _of_teacher(second) else (first, second)


def _of_teacher(argument: str) -> bool:
    return bool({'t', 'teacher'} & set(argument.lower().split('_')))


def _connector(config: dict, level: LevelPair, where: str) -> dict[str, Any]:
    """A connector's config with the widths of one level."""
    if 'type' not in config:
        raise DistillError(f'"{where}" must be a dict with a "type", for instance dict(type=\'mmrazor.MGDConnector\').')
    filled = {key: value for key, value in config.items() if key != '_scope_'}
    kind, filled['type'] = _find(config['type'], f'{where}.type', 'connectors')
    known = inspect.signature(kind).parameters
    for names, tap in zip(_WIDTHS, (level.student, level.teacher)):
        filled.update({name: tap.channels for name in names if name in known and name not in filled})
    return filled


def _find(name: str, where: str, folder: str) -> tuple[type, str]:
    """The class of a loss or connector and the name under which every scope finds it.

    Raises:
        DistillError: If there is none of that name.
    """
    for full in [name] if '.' in name else [f'mmkd_plugin.{name}', f'mmrazor.{name}', name]:
        found = MODELS.get(full)
        if found is not None:
            return found, full
    known = {**ROOT_MODELS.children['mmrazor'].module_dict, **MODELS.module_dict}
    options = [key for key, value in known.items() if f'.{folder}.' in value.__module__]
    raise DistillError(f'"{where}" is {name!r}, which is none of the {folder}: {nearest(name.split(".")[-1], options)}')
