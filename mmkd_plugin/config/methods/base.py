"""What every method of the ``distill`` block has in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

from mmkd_plugin.config.probe import LevelPair, ModelPair, Tap


@dataclasses.dataclass
class Parts:
    """The pieces of a distiller config that one method adds, under MMRazor's names."""

    student_recorders: dict[str, dict] = dataclasses.field(default_factory=dict)
    teacher_recorders: dict[str, dict] = dataclasses.field(default_factory=dict)
    connectors: dict[str, dict] = dataclasses.field(default_factory=dict)
    distill_losses: dict[str, dict] = dataclasses.field(default_factory=dict)
    loss_forward_mappings: dict[str, dict] = dataclasses.field(default_factory=dict)

    def merge(self, other: Parts) -> None:
        """Take over the pieces of another method; equal recorders are shared."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).update(getattr(other, field.name))

    def to_dict(self) -> dict[str, dict]:
        """The pieces as a config."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def record(self, tap: Tap, from_student: bool) -> dict[str, Any]:
        """Add a recorder for a tap and return the mapping entry that reads it."""
        recorders = self.student_recorders if from_student else self.teacher_recorders
        name = tap.source.replace('.', '_')
        recorders[name] = dict(type='mmkd_plugin.Feature', source=tap.source)
        entry: dict[str, Any] = dict(recorder=name, from_student=from_student)
        if tap.record_idx:
            entry['record_idx'] = tap.record_idx
        if tap.data_idx is not None:
            entry['data_idx'] = tap.data_idx
        return entry

    def record_ground_truth(self) -> dict[str, dict]:
        """Add the ground-truth recorder and return the mapping entries of its fields."""
        self.student_recorders['ground_truth'] = dict(type='mmkd_plugin.GroundTruth')
        fields = ('boxes', 'valid', 'image_shapes')
        return {
            field: dict(recorder='ground_truth', from_student=True, data_idx=index)
            for index, field in enumerate(fields)
        }

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
    """

    weight: float = 1.0

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
