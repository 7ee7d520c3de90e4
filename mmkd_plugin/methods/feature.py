"""Any loss between features of student and teacher in the ``distill`` block."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
from typing import Any, Dict, List, Optional, Tuple, Union

from mmengine.logging import print_log
from typing_extensions import Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.arguments import require_arguments
from mmkd_plugin.methods.base import WEIGHT, Method
from mmkd_plugin.methods.level import fill_in
from mmkd_plugin.methods.lookup import find_part, full_name
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Entry, Parts, level_name
from mmkd_plugin.probe.models import LevelPair, ModelPair
from mmkd_plugin.registry import METHODS
from mmkd_plugin.utilities.settings import Count, Factor, check_all, settings_of

_WIDTHS = (('in_channels', 'in_channel', 'student_channels'), ('out_channels', 'out_channel', 'teacher_channels'))
"""What connectors call the student's and the teacher's number of channels."""
_MODELS = {'student', 'teacher'}


@METHODS.register_module()
class Feature(Method):
    """MMRazor's losses, and any other that takes features and what a step knows; one loss per level.

    The loss is called with the features and, by the names of its arguments, with ``boxes``, ``valid``,
    ``image_shapes``, ``labels``, ``label``, ``image`` and ``priors``.

    Attributes:
        loss: Config of the loss; a ``type`` without scope is looked up in the plugin, then in MMRazor, one of your own
            is named with its package.
        loss_weight: The loss's own ``loss_weight``, its default if not given; 0 switches the method off.
        tap: ``'output'`` (what the neck returns), ``'pre_norm'`` (each level's last convolution), the path of a module,
            or ``dict(student=path, teacher=path)``. A module that is called several times gives several levels. Several
            taps by names of your choice, ``dict(low='backbone.layer1', neck='output')``, reach the loss as
            ``student_low``, ``teacher_low`` and so on.
        levels: How many levels to compare, from the finest; all by default.
        adapt: A 1x1 convolution at the student: ``'auto'`` where widths differ, ``'always'`` or ``'never'``; or the
            config of another connector, whose channels are filled in.
        same_classes: Whether the channels are classes, so that a teacher of other classes is refused.
    """

    loss: Dict[str, Any] = dataclasses.field(default_factory=dict)
    loss_weight: Optional[Factor] = None
    tap: Union[str, Dict[str, Any]] = 'output'
    levels: Optional[Count] = None
    adapt: Union[Literal['auto', 'always', 'never'], Dict[str, Any]] = 'auto'
    same_classes: bool = False
    # The weight of the teacher, within which the loss's own lies.
    factor: float = dataclasses.field(default=1.0, init=False)

    def check(self, where: str) -> None:
        """Refuse a loss that is none, and two weights for it."""
        if 'type' not in self.loss:
            raise DistillError(f'"{where}.loss" must be a dict with a "type", for instance dict(type=\'PKDLoss\').')
        if self.loss_weight is not None and WEIGHT in self.loss:
            raise DistillError(
                f'"{where}" has a {WEIGHT} and another one in its loss; keep "{where}.{WEIGHT}" and take the other out.'
            )
        kind: Any = find_part(self.loss['type'], f'{where}.loss.type', 'losses')
        require_arguments(kind, self._config(kind, where), f'{where}.loss')
        if issubclass(kind, DistillLoss):
            given = {key: value for key, value in self.loss.items() if key != 'type'}
            check_all(given, settings_of(kind), f'{where}.loss')
        if isinstance(self.adapt, dict):
            _connector_class(self.adapt, f'{where}.adapt')
        for tap, written in self._taps().items():
            _paths(written, f'{where}.tap' + (f'.{tap}' if tap else ''))

    @property
    def active(self) -> bool:
        """Whether the loss has a weight."""
        weight = self.loss.get(WEIGHT) if self.loss_weight is None else self.loss_weight
        return weight != 0 and self.factor != 0 and self.share != 0

    def scaled(self, factor: float) -> Method:
        """The same method with its loss multiplied by a factor; the loss itself is looked up when it is wired."""
        if self.auto:
            return super().scaled(factor)
        scaled = copy.copy(self)
        scaled.factor = self.factor * factor
        return scaled

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss per level, each with its own connector."""
        where = f'distill.methods.{name}'
        kind = find_part(self.loss['type'], f'{where}.loss.type', 'losses')
        config = self._config(kind, where)
        parts = Parts(same_classes=self.same_classes)
        for index, taps in enumerate(self._levels(where, models)):
            loss = level_name(f'loss_{name}', index)
            features: Dict[str, Entry] = {}
            for tap, level in taps.items():
                connector = f'{loss}_{tap}' if tap else loss
                student, teacher = self._record(parts, connector, level, where)
                suffix = f'_{tap}' if tap else ''
                features[f'student{suffix}'] = student
                features[f'teacher{suffix}'] = dict(teacher, like=f'student{suffix}')
            arguments = fill_in(parts, kind, features, next(iter(taps.values())), models, where)
            parts.add_loss(loss, dict(config), **arguments)
        return parts

    def _config(self, kind: type, where: str) -> Dict[str, Any]:
        """Config of the loss with its full name and weight."""
        config = {key: value for key, value in self.loss.items() if key != '_scope_'}
        config['type'] = full_name(kind)
        if self.loss_weight is not None or self.factor != 1:
            config[WEIGHT] = self._weight(kind, where)
        return config

    def begins_with(self) -> float:
        """The weight of the loss itself."""
        kind = find_part(self.loss['type'], 'loss.type', 'losses')
        return self._weight(kind, '') if WEIGHT in inspect.signature(kind).parameters else 1.0

    def _weight(self, kind: type, where: str) -> float:
        """The weight that the loss gets."""
        own = inspect.signature(kind).parameters.get(WEIGHT)
        if own is None:
            raise DistillError(
                f'{kind.__name__} has no {WEIGHT} for "{where}.{WEIGHT}", or for the one of its teacher; leave these '
                'out, and set the weight that the loss has, if any, in its own config.'
            )
        default = own.default if isinstance(own.default, (int, float)) else 1.0
        weight = self.loss.get(WEIGHT, default) if self.loss_weight is None else self.loss_weight
        return weight * self.factor

    def _record(self, parts: Parts, connector: str, level: LevelPair, where: str) -> Tuple[Entry, Entry]:
        """Record both features of a level and adapt the student's."""
        if self.same_classes and level.student.channels != level.teacher.channels:
            raise DistillError(
                f'The channels of "{level.student.source}" are classes, {level.student.channels} of the student '
                f'and {level.teacher.channels} of the teacher; choose a teacher of the same classes.'
            )
        if not isinstance(self.adapt, dict):
            return parts.record_level(connector, level, self.adapt)
        student, teacher = parts.record_level(connector, level, 'never')
        parts.connectors[connector] = _connector(self.adapt, level, f'{where}.adapt')
        return dict(student, connector=connector), teacher

    def _taps(self) -> Dict[str, Any]:
        """The taps by the user's names; a single one has none."""
        if not isinstance(self.tap, dict):
            return {'': self.tap}
        written = {key: value for key, value in self.tap.items() if key != '_scope_'}
        return {'': written} if set(written) <= _MODELS else written

    def _levels(self, where: str, models: ModelPair) -> List[Dict[str, LevelPair]]:
        """For each level the taps of both models, by the user's names; a single tap has none."""
        found = {
            tap: _match(value, f'{where}.tap' + (f'.{tap}' if tap else ''), models)
            for tap, value in self._taps().items()
        }
        count = max(len(levels) for levels in found.values())
        for tap, levels in found.items():
            if len(levels) not in (1, count):
                raise DistillError(
                    f'"{where}.tap.{tap}" gives {len(levels)} levels where another tap gives {count}; name modules '
                    'that are called as often, or only once.'
                )
        paired = [
            {tap: levels[index if len(levels) > 1 else 0] for tap, levels in found.items()} for index in range(count)
        ]
        if self.levels is not None and self.levels > count:
            strides = ', '.join(f'{level.student.stride:g}' for level in next(iter(found.values())))
            # Recipes name the number that suits most models, so that this ends no run.
            print_log(
                f'"{where}.levels" is {self.levels}, but {models.student.name} and {models.teacher.name} have {count} '
                f'to compare there, of stride {strides}; all of these are compared.',
                'current',
                logging.WARNING,
            )
        return paired[: self.levels]


def _paths(tap: Any, where: str) -> Dict[str, str]:
    """The paths of the modules in both models."""
    paths = dict(student=tap, teacher=tap) if isinstance(tap, str) else tap
    if not isinstance(paths, dict) or {key for key in paths if key != '_scope_'} != _MODELS:
        raise DistillError(
            f'"{where}" is {tap!r}; it must be the path of a module, or dict(student=<module path>, '
            'teacher=<module path>).'
        )
    return paths


def _match(tap: Any, where: str, models: ModelPair) -> List[LevelPair]:
    """One tap in both models, matched by stride."""
    if tap in ('output', 'pre_norm'):
        return models.levels(tap)
    paths = _paths(tap, where)
    return models.match(models.student.calls(paths['student']), models.teacher.calls(paths['teacher']))


def _connector(config: Dict[str, Any], level: LevelPair, where: str) -> Dict[str, Any]:
    """A connector's config with the widths of one level."""
    filled = {key: value for key, value in config.items() if key != '_scope_'}
    kind = _connector_class(config, where)
    filled['type'] = full_name(kind)
    known = inspect.signature(kind).parameters
    for names, tap in zip(_WIDTHS, (level.student, level.teacher)):
        filled.update({name: tap.channels for name in names if name in known and name not in filled})
    require_arguments(kind, filled, where)
    return filled


def _connector_class(config: Dict[str, Any], where: str) -> type:
    """The class of a connector."""
    if 'type' not in config:
        raise DistillError(f'"{where}" must be a dict with a "type", for instance dict(type=\'mmrazor.MGDConnector\').')
    return find_part(config['type'], f'{where}.type', 'connectors')
