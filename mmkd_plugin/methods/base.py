"""What every method of the ``distill`` block has in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, Union

from mmkd_plugin.distillers.schedule import WeightSchedule
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.models import LevelPair, ModelPair, Tap
from mmkd_plugin.utilities.typed import from_dict


@dataclasses.dataclass
class Parts:
    """What one method adds to the algorithm: pieces of its distiller config, under MMRazor's names, and some options.

    Attributes:
        student_loss_weights: Factors on the student's own losses, by the start of their names.
        soft_terms: The term of ours, ``'<loss>.<term>'``, that each of these factors makes room for.
        same_classes: Whether outputs are compared class by class, so that both models must know the same classes.
        adversaries: Optimizers and schedules of losses with a discriminator, by the name of the loss.
    """

    student_recorders: dict[str, dict] = dataclasses.field(default_factory=dict)
    teacher_recorders: dict[str, dict] = dataclasses.field(default_factory=dict)
    connectors: dict[str, dict] = dataclasses.field(default_factory=dict)
    distill_losses: dict[str, dict] = dataclasses.field(default_factory=dict)
    loss_forward_mappings: dict[str, dict] = dataclasses.field(default_factory=dict)
    schedules: dict[str, dict] = dataclasses.field(default_factory=dict)
    student_loss_weights: dict[str, float] = dataclasses.field(default_factory=dict)
    soft_terms: dict[str, str] = dataclasses.field(default_factory=dict)
    same_classes: bool = False
    adversaries: dict[str, dict] = dataclasses.field(default_factory=dict)

    def merge(self, other: Parts) -> None:
        """Take over the pieces of another method; equal recorders are shared.

        Raises:
            DistillError: If both weigh the same loss of the student.
        """
        for loss in self.student_loss_weights.keys() & other.student_loss_weights.keys():
            raise DistillError(
                f'Two methods of the distill block weigh the student\'s "{loss}"; keep one of them, or set its share '
                '(alpha or mu) to 1 in all but one.'
            )
        for field in dataclasses.fields(self):
            if field.name != 'same_classes':
                getattr(self, field.name).update(getattr(other, field.name))
        self.same_classes = self.same_classes or other.same_classes

    def for_teacher(self, name: str) -> Parts:
        """The same pieces for one of several teachers: its recorders bear its name."""
        renamed = {f'{name}_{key}': dict(value, teacher=name) for key, value in self.teacher_recorders.items()}

        def rename(entry: Any) -> Any:
            if isinstance(entry, list):
                return [rename(item) for item in entry]
            return entry if entry['from_student'] else dict(entry, recorder=f'{name}_{entry["recorder"]}')

        mappings = {
            loss: {key: rename(entry) for key, entry in mapping.items()}
            for loss, mapping in self.loss_forward_mappings.items()
        }
        return dataclasses.replace(self, teacher_recorders=renamed, loss_forward_mappings=mappings)

    def follow(self, method: Method, where: str) -> None:
        """Put the method's schedules on all its losses."""
        plans = {'': method.schedule, **{f'.{term}': plan for term, plan in method.schedules.items()}}
        for suffix, plan in plans.items():
            if suffix == '._scope_' or not plan:
                continue
            key = f'{where}.schedules{suffix}' if suffix else f'{where}.schedule'
            if not isinstance(plan, dict):
                raise DistillError(f'"{key}" is {plan!r}; it must be a dict such as dict(stop=1000).')
            from_dict(WeightSchedule, plan, key)
            given = {name: value for name, value in plan.items() if name != '_scope_'}
            self.schedules.update({f'{loss}{suffix}': dict(given) for loss in self.distill_losses})

    def to_dict(self) -> dict[str, Any]:
        """The pieces as arguments of the algorithm; options at their default are left out."""
        options = ('student_loss_weights', 'soft_terms', 'same_classes', 'adversaries')
        pieces = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = {name: value for name in options if (value := pieces.pop(name))}
        if not self.schedules:
            pieces.pop('schedules')
            given.pop('soft_terms', None)
        return dict(distiller=dict(type='mmkd_plugin.Distiller', **pieces), **given)

    def record(self, tap: Tap, from_student: bool) -> dict[str, Any]:
        """Add a recorder for a tap and return the mapping entry that reads it."""
        recorders = self.student_recorders if from_student else self.teacher_recorders
        name = tap.source.replace('.', '_')
        recorders[name] = dict(type='mmkd_plugin.Feature', source=tap.source)
        if tap.direct:
            recorders[name]['direct'] = True
        entry: dict[str, Any] = dict(recorder=name, from_student=from_student)
        if tap.record_idx:
            entry['record_idx'] = tap.record_idx
        if tap.data_idx is not None:
            entry['data_idx'] = tap.data_idx
        return entry

    def record_both(self, student: Tap, teacher: Tap) -> dict[str, dict[str, Any]]:
        """Record a tap of each model and return the entries of a loss's arguments ``student`` and ``teacher``."""
        return dict(student=self.record(student, from_student=True), teacher=self.record(teacher, from_student=False))

    def record_level(
        self, name: str, level: LevelPair, always: bool = False, adapt: bool = True, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Record both features of a level, adapt the student's, and resize the teacher's to it where they differ.

        Args:
            name: Name of the connector.
            level: The two taps.
            always: As for :meth:`adapt`.
            adapt: Whether widths are adapted at all.
            **options: As for :meth:`adapt`.

        Returns:
            The mapping entries of a loss's arguments ``student`` and ``teacher``.
        """
        student = self.record(level.student, from_student=True)
        if adapt:
            self.adapt(name, level, student, always=always, **options)
        return student, dict(self.record(level.teacher, from_student=False), like='student')

    def record_ground_truth(self) -> dict[str, dict]:
        """Add the ground-truth recorder and return the mapping entries of its fields."""
        self.student_recorders['ground_truth'] = dict(type='mmkd_plugin.GroundTruth')
        fields = ('boxes', 'valid', 'image_shapes')
        return {
            field: dict(recorder='ground_truth', from_student=True, data_idx=index)
            for index, field in enumerate(fields)
        }

    def record_image(self) -> dict[str, Any]:
        """Add the recorder of the student's batch and return the mapping entry that reads it."""
        self.student_recorders['image'] = dict(type='mmkd_plugin.Image')
        return dict(recorder='image', from_student=True)

    def record_labels(self) -> dict[str, dict]:
        """Add the recorder of the label map and return its mapping entry."""
        self.student_recorders['label'] = dict(type='mmkd_plugin.SemanticMap')
        return dict(label=dict(recorder='label', from_student=True))

    def mix(self, loss: str, share: float, term: str) -> None:
        """Give a loss of the student a share, the rest of which a term of ours has.

        Args:
            loss: Start of the name of the student's loss.
            share: Its factor while the term has its full weight; where a schedule lowers that, the factor rises to 1.
            term: ``'<loss>.<term>'``.
        """
        self.student_loss_weights[loss] = share
        self.soft_terms[loss] = term

    def adapt(self, name: str, level: LevelPair, entry: dict[str, Any], always: bool = False, **options: Any) -> None:
        """Put a convolution before a loss where student and teacher differ in width.

        Args:
            name: Name of the connector; one per loss and level.
            level: The two taps.
            entry: Mapping entry of the student feature; the connector is added to it.
            always: Whether equal widths are adapted as well.
            **options: Further arguments of ``ConvConnector``.
        """
        if not always and level.student.channels == level.teacher.channels:
            return
        self.connectors[name] = dict(
            type='mmkd_plugin.ConvConnector',
            in_channels=level.student.channels,
            out_channels=level.teacher.channels,
            **options,
        )
        entry['connector'] = name


@dataclasses.dataclass
class Method(ABC):
    """A distillation method: its settings, and how they become recorders, connectors and losses.

    Attributes:
        weight: Factor on all terms of the method; 0 switches it off.
        teacher: Which of several teachers it follows.
        schedule: Keys of :class:`~mmkd_plugin.distillers.schedule.WeightSchedule`, for all terms.
        schedules: The same by term; a term with its own follows that one alone.
    """

    weight: float = 1.0
    teacher: Union[str, None] = None  # noqa: UP007
    schedule: dict = dataclasses.field(default_factory=dict)
    schedules: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that no method can work with.

        Raises:
            DistillError: On a negative weight or a temperature of 0 or below.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith('weight') and value < 0:
                raise DistillError(f'The {field.name} of {type(self).__name__} is {value:g}; it must not be negative.')
            if field.name == 'temperature' and value <= 0:
                raise DistillError(f'The temperature of {type(self).__name__} is {value:g}; it must be above 0.')

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        return self.weight != 0

    @abstractmethod
    def expand(self, name: str, models: ModelPair) -> Parts:
        """Describe the method for a pair of models.

        Args:
            name: The method's name in the block.
            models: Student and teacher with their levels, channels and strides.

        Returns:
            The pieces of the distiller config.
        """
