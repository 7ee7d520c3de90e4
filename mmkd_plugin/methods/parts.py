"""What methods add to the algorithm: recorders, connectors, losses, and which record reaches which argument."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple

from mmkd_plugin.distillers.entries import LEVEL
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.models import LevelPair, ModelPair
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.recorders import BatchRecorder

Entry = Dict[str, Any]
"""Where an argument of a loss comes from: a record of one side, by name, and what is done to it."""

BATCH_FACTS = tuple(BatchRecorder.facts)
"""Facts of the batch that a loss gets by the name of its argument, as the ``Batch`` recorder calls them."""


def level_name(loss: str, index: int) -> str:
    """Name of a loss at one pyramid level; the levels are logged as their sum."""
    return f'{loss}{LEVEL}{index}'


@dataclasses.dataclass
class Parts:
    """Pieces of the distiller's config, under MMRazor's names, and some options of the algorithm.

    Attributes:
        student_loss_weights: Factors on the student's own losses, by the start of their names.
        soft_terms: The term of ours, ``'<loss>.<term>'``, that each of these factors makes room for.
        same_classes: Whether outputs are compared class by class, so that both models must know the same classes.
        adversaries: Optimizers and schedules of losses with a discriminator, by the name of the loss.
        balance: The methods whose weights find themselves, by name: their share, their losses and their weight.
    """

    student_recorders: Dict[str, dict] = dataclasses.field(default_factory=dict)
    teacher_recorders: Dict[str, dict] = dataclasses.field(default_factory=dict)
    connectors: Dict[str, dict] = dataclasses.field(default_factory=dict)
    distill_losses: Dict[str, dict] = dataclasses.field(default_factory=dict)
    loss_forward_mappings: Dict[str, dict] = dataclasses.field(default_factory=dict)
    schedules: Dict[str, dict] = dataclasses.field(default_factory=dict)
    student_loss_weights: Dict[str, float] = dataclasses.field(default_factory=dict)
    soft_terms: Dict[str, str] = dataclasses.field(default_factory=dict)
    same_classes: bool = False
    adversaries: Dict[str, dict] = dataclasses.field(default_factory=dict)
    balance: Dict[str, dict] = dataclasses.field(default_factory=dict)

    def merge(self, other: Parts) -> None:
        """Take over the pieces of another method; equal recorders are shared.

        Raises:
            DistillError: If both weigh the same loss of the student.
        """
        for loss in self.student_loss_weights.keys() & other.student_loss_weights.keys():
            raise DistillError(
                f'Two methods of the distill block weigh the student\'s "{loss}"; keep one of them, or set its share '
                '(hard_share) to 1 in all but one.'
            )
        for field in dataclasses.fields(self):
            if field.name != 'same_classes':
                getattr(self, field.name).update(getattr(other, field.name))
        self.same_classes = self.same_classes or other.same_classes

    def of_teacher(self, name: str) -> Parts:
        """The same pieces with the teacher's recorders bearing its name."""
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

    def distiller(self) -> Dict[str, Any]:
        """Config of the distiller."""
        pieces = ('student_recorders', 'teacher_recorders', 'connectors', 'distill_losses', 'loss_forward_mappings')
        config = dict(type='mmkd_plugin.Distiller', **{name: getattr(self, name) for name in pieces})
        extras = dict(schedules=self.schedules, balance=self.balance)
        return {**config, **{name: value for name, value in extras.items() if value}}

    def options(self) -> Dict[str, Any]:
        """Options of the algorithm; those at their default are left out."""
        found = dict(student_loss_weights=self.student_loss_weights, adversaries=self.adversaries)
        if self.schedules:
            found['soft_terms'] = self.soft_terms
        return {name: value for name, value in found.items() if value}

    def add_loss(self, name: str, config: Dict[str, Any], **arguments: Any) -> None:
        """Add a loss.

        Args:
            name: Its name.
            config: Its config.
            **arguments: Where each argument comes from: an entry, or a list of them.
        """
        self.distill_losses[name] = config
        self.loss_forward_mappings[name] = arguments

    def record(self, tap: Tap, from_student: bool) -> Entry:
        """Add a recorder for a tap and return the mapping entry that reads it."""
        recorders = self.student_recorders if from_student else self.teacher_recorders
        name = tap.source.replace('.', '_')
        recorders[name] = dict(type='mmkd_plugin.ModuleOutput', source=tap.source)
        if tap.direct:
            recorders[name]['direct'] = True
        entry: Entry = dict(recorder=name, from_student=from_student)
        if tap.record_idx:
            entry['record_idx'] = tap.record_idx
        if tap.data_idx is not None:
            entry['data_idx'] = tap.data_idx
        return entry

    def record_maps(self, student: Tap, teacher: Tap, align_corners: bool) -> Dict[str, Entry]:
        """Record a tap of each model, the student's in the size of the teacher's.

        Returns:
            The entries of a loss's arguments ``student`` and ``teacher``.
        """
        resized = dict(self.record(student, from_student=True), like='teacher', align_corners=align_corners)
        return dict(student=resized, teacher=self.record(teacher, from_student=False))

    def record_level(self, name: str, level: LevelPair, adapt: str = 'auto', **options: Any) -> Tuple[Entry, Entry]:
        """Record both features of a level, adapt the student's, and resize the teacher's to it where they differ.

        Args:
            name: Name of the connector.
            level: The two taps.
            adapt: ``'auto'`` adapts the student where widths differ, ``'always'`` in any case, ``'never'`` not at all.
            **options: Further arguments of ``ConvConnector``.

        Returns:
            The mapping entries of a loss's arguments ``student`` and ``teacher``.
        """
        student = self.record(level.student, from_student=True)
        differ = level.student.channels != level.teacher.channels
        if adapt == 'always' or (adapt == 'auto' and differ):
            widths = dict(in_channels=level.student.channels, out_channels=level.teacher.channels)
            self.connectors[name] = dict(type='mmkd_plugin.ConvConnector', **widths, **options)
            student['connector'] = name
        return student, dict(self.record(level.teacher, from_student=False), like='student')

    def record_fact(self, fact: str) -> Entry:
        """Add the recorder of the batch and return the mapping entry of one of :data:`BATCH_FACTS`."""
        self.student_recorders['batch'] = dict(type='mmkd_plugin.Batch')
        return dict(recorder='batch', from_student=True, data_idx=fact)

    def record_facts(self, *facts: str) -> Dict[str, Entry]:
        """The mapping entries of several facts, by their names."""
        return {fact: self.record_fact(fact) for fact in facts}

    def record_priors(self, level: LevelPair, models: ModelPair) -> Optional[Entry]:
        """Add the recorder of the student's anchors and return the mapping entry of one level.

        Returns:
            The entry; None where the student's head places no anchors on the level.
        """
        taps = models.student.output
        tap = next((tap for tap in taps if tap.stride == level.student.stride), None)
        if tap is None or models.student.anchor_level(tap.stride) is None:
            return None
        levels: List[Optional[int]] = [None] * (1 + max(tap.data_idx or 0 for tap in taps))
        for other in taps:
            levels[other.data_idx or 0] = models.student.anchor_level(other.stride)
        self.student_recorders['priors'] = dict(type='mmkd_plugin.Priors', source=taps[0].source, levels=levels)
        return dict(recorder='priors', from_student=True, data_idx=tap.data_idx or 0)

    def mix(self, loss: str, share: float, term: str) -> None:
        """Give a loss of the student a share, the rest of which a term of ours has.

        Args:
            loss: Start of the name of the student's loss.
            share: Its factor while the term has its full weight; where a schedule lowers that, the factor rises to 1.
            term: ``'<loss>.<term>'``.
        """
        self.student_loss_weights[loss] = share
        self.soft_terms[loss] = term
