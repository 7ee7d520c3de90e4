"""What every method of the ``distill`` block has in common: its settings, and how they become an MMRazor config."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple, Union

from typing_extensions import Literal, dataclass_transform

from mmkd_plugin.distillers.schedule import WeightSchedule
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.lookup import full_name, known_methods
from mmkd_plugin.methods.parts import Parts
from mmkd_plugin.probe.models import ModelPair
from mmkd_plugin.utilities.settings import SHARES, WEIGHS, Positive, Setting, Weight, check_all, from_dict, settings_of

WEIGHT = 'loss_weight'
"""The factor on all terms of a loss, and so of a method."""
AUTO = 'auto'
"""What a user writes for a weight that finds itself."""


@dataclass_transform()
@dataclasses.dataclass
class Method(ABC):
    """A distillation method.

    A subclass names its loss, whose settings become the method's, and says in :meth:`expand` how the loss is wired.
    What it annotates is a setting of its own: subclasses are dataclasses. Register it with
    ``METHODS.register_module()``.

    Attributes:
        teacher: Which of several teachers it follows.
        schedule: How the weight changes during the run, for all terms: keys of a schedule.
        schedules: The same by term, under the names that are logged; such a term follows its own schedule alone.
        share: With ``loss_weight='auto'``, the ratio of the method's gradient to that of the task loss; its part of
            ``distill.share`` if not given.
    """

    losses: ClassVar[Dict[str, type]] = {}
    """The losses by a prefix.

    The settings of the loss without a prefix keep their names; those of the others begin with it, and
    ``<prefix>_weight`` is that loss's ``loss_weight``, within the method's own.
    """
    given: ClassVar[Tuple[str, ...]] = ()
    """Arguments of the losses that :meth:`expand` finds out and a user does not write."""
    renamed: ClassVar[Dict[str, str]] = {'weight': WEIGHT}
    """What to write instead of keys that are no more."""

    task: ClassVar[str] = ''
    """``'detection'`` or ``'segmentation'``, where the method is for one of them."""
    general: ClassVar[bool] = False
    """Whether every model of its task has what it needs."""
    part_of_share: ClassVar[float] = 1.0
    """The most of ``distill.share`` that it gets where it has no ``share`` of its own.

    Less than 1 for what is only meant to go with another method and, pulling as strongly, would spoil the student.
    """

    teacher: Optional[str] = None
    schedule: Dict[str, Any] = dataclasses.field(default_factory=dict)
    schedules: Dict[str, Any] = dataclasses.field(default_factory=dict)
    share: Optional[Positive] = None
    auto: bool = dataclasses.field(default=False, init=False)
    options: Dict[str, Any] = dataclasses.field(default_factory=dict, init=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        try:
            dataclasses.dataclass(cls)
        except TypeError as error:
            raise DistillError(f'Every setting of {cls.__name__} needs a default ({error}).') from error

    @classmethod
    def settings(cls) -> Dict[str, Setting]:
        """Every key that a user may write, those of the losses first."""
        found = {}
        for prefix, loss in cls.losses.items():
            for name, setting in settings_of(loss).items():
                if name not in cls.given:
                    key = _key(prefix, name)
                    hint = Weight if prefix and name == WEIGHT else setting.hint
                    found[key] = dataclasses.replace(setting, name=key, hint=hint)
        found.update(settings_of(cls))
        if WEIGHT in found:
            weight = found[WEIGHT]
            found[WEIGHT] = dataclasses.replace(
                weight,
                hint=Union[weight.hint, Literal['auto']],
                meaning=f"{weight.meaning.rstrip('.')}; ``'{AUTO}'`` finds the one that gives the method its share.",
            )
        return found

    @classmethod
    def parse(cls, values: Dict[str, Any], where: str) -> Method:
        """Check what a user wrote.

        Args:
            values: The method's dict without its type.
            where: Its place in the config, for messages.

        Returns:
            The method.

        Raises:
            DistillError: On an unknown key, a wrong type or a number out of range.
        """
        renamed = {key: text for base in reversed(cls.__mro__) for key, text in vars(base).get('renamed', {}).items()}
        found = check_all(values, cls.settings(), where, renamed)
        auto = found.get(WEIGHT) == AUTO
        if auto:
            del found[WEIGHT]
        elif 'share' in found:
            raise DistillError(
                f'"{where}.share" is for a weight that finds itself; set {where}.{WEIGHT}=\'{AUTO}\' with it, or take '
                'it out.'
            )
        own = settings_of(cls)
        method = cls(**{key: value for key, value in found.items() if key in own})
        method.options = {key: value for key, value in found.items() if key not in own}
        method.auto = auto
        method.check(where)
        for key, plan in method._plans():
            if not isinstance(plan, dict):
                raise DistillError(f'"{where}.{key}" is {plan!r}; it must be a dict such as dict(stop=1000).')
            from_dict(WeightSchedule, plan, f'{where}.{key}')
        return method

    def check(self, where: str) -> None:  # noqa: B027
        """Refuse settings that exclude each other; called before any model is built.

        Args:
            where: The method's place in the config, for messages.

        Raises:
            DistillError: In one sentence that names the fix.
        """

    def check_unlabelled(self, where: str) -> None:  # noqa: B027
        """Refuse settings that keep images without labels out of the method; called where there are such images.

        Args:
            where: The method's place in the config, for messages.

        Raises:
            DistillError: In one sentence that names the fix.
        """

    def __getattr__(self, name: str) -> Any:
        """A setting of the losses: what the user wrote, or its default."""
        if not name.startswith('_') and name != 'options':
            if name in self.options:
                return self.options[name]
            settings = type(self).settings()
            if name in settings:
                return settings[name].default
        raise AttributeError(f'{type(self).__name__} has no setting "{name}".')

    def scaled(self, factor: float) -> Method:
        """The same method with all of its terms multiplied by a factor; where its weight finds itself, its share.

        Raises:
            DistillError: If its loss has no weight that could be multiplied.
        """
        if factor == 1:
            return self
        if self.auto:
            assert self.share is not None
            scaled = copy.copy(self)
            scaled.share = self.share * factor
            return scaled
        if WEIGHT not in self.settings():
            raise DistillError(
                f'{type(self).__name__} has no {WEIGHT} that the weight of its teacher could multiply; leave that out.'
            )
        scaled = copy.copy(self)
        weight = getattr(self, WEIGHT) * factor
        if WEIGHT in settings_of(type(self)):
            setattr(scaled, WEIGHT, weight)
        else:
            scaled.options = dict(self.options, **{WEIGHT: weight})
        return scaled

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        settings = self.settings()
        if WEIGHT in settings and not getattr(self, WEIGHT):
            return False
        if self.auto and self.share == 0:
            return False
        terms = [getattr(self, name) not in (0, None) for name, setting in settings.items() if setting.has(WEIGHS)]
        terms += [getattr(self, name) != 1 for name, setting in settings.items() if setting.has(SHARES)]
        return any(terms) or not terms

    def loss_config(self, prefix: str = '', **given: Any) -> Dict[str, Any]:
        """Config of one of the method's losses.

        Args:
            prefix: Which of them.
            **given: What :meth:`expand` found out.

        Returns:
            Its type and all of its settings.
        """
        loss = self.losses[prefix]
        config = dict(type=full_name(loss), **given)
        for name in settings_of(loss):
            if name not in self.given and name not in given:
                config[name] = getattr(self, _key(prefix, name))
        if prefix and WEIGHT in config and WEIGHT in self.settings():
            config[WEIGHT] = getattr(self, WEIGHT) * config[WEIGHT]
        return config

    @abstractmethod
    def expand(self, name: str, models: ModelPair) -> Parts:
        """Describe the method for a pair of models.

        Args:
            name: The method's name in the block.
            models: Student and teacher with their levels, channels and strides.

        Returns:
            The pieces of the distiller config.
        """

    def expand_scheduled(self, name: str, models: ModelPair) -> Parts:
        """:meth:`expand`, for a model of its task, with the method's schedules on all of its losses."""
        if self.task == 'detection' and models.student.task == 'segmentation':
            others = [key for key, kind in known_methods().items() if getattr(kind, 'task', '') != self.task]
            raise DistillError(
                f'"distill.methods.{name}" is {type(self).__name__}, which needs the objects that a detector is '
                f'trained on, but the student, {models.student.name}, is a segmentor; there are {", ".join(others)}.'
            )
        parts = self.expand(name, models)
        if self.auto:
            losses = list(parts.distill_losses)
            parts.balance[name] = dict(share=self.share, losses=losses, weight=self.begins_with())
        for key, plan in self._plans():
            suffix = key[len('schedules') :]
            written = {name: value for name, value in plan.items() if name != '_scope_'}
            parts.schedules.update({f'{loss}{suffix}': dict(written) for loss in parts.distill_losses})
        return parts

    def begins_with(self) -> float:
        """The ``loss_weight`` that its losses are built with where the weight finds itself."""
        return float(getattr(self, WEIGHT))

    def _plans(self) -> List[Tuple[str, Dict[str, Any]]]:
        """The schedules that are there, each behind its key."""
        plans = {'schedule': self.schedule, **{f'schedules.{term}': plan for term, plan in self.schedules.items()}}
        return [(key, plan) for key, plan in plans.items() if key != 'schedules._scope_' and plan]


def _key(prefix: str, name: str) -> str:
    """What a user writes for an argument of the loss with a prefix."""
    if not prefix:
        return name
    return f'{prefix}_weight' if name == WEIGHT else f'{prefix}_{name}'


def divided(share: float, methods: Mapping[str, Method]) -> Dict[str, float]:
    """The parts that methods have in one share: equal ones, but for those that want less.

    Args:
        share: To be divided.
        methods: By name.

    Returns:
        The parts by name.
    """
    equal = 1 / max(1, len(methods))
    parts = {name: method.part_of_share for name, method in methods.items() if method.part_of_share < equal}
    others = len(methods) - len(parts)
    rest = (1 - sum(parts.values())) / max(1, others)
    return {name: share * parts.get(name, rest) for name in methods}
