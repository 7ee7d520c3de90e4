"""The distiller: MMRazor's configurable one, made safe for mixed precision and for losses of several terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.razor import ConfigurableDistiller
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS

LEVEL = '_level'
"""Separates a loss's name from the pyramid level it works on; the levels of one loss are logged as their sum."""


@MODELS.register_module()
class Distiller(ConfigurableDistiller):
    """Feed the losses from the recorders.

    It takes MMRazor's keys (``student_recorders``, ``teacher_recorders``, ``connectors``, ``distill_losses``,
    ``loss_forward_mappings``) and adds five things: a loss may return several named terms; losses named
    ``<name>_level<i>`` are logged together; an argument may be a list of records, each with its own connector; losses
    run in float32 whatever the precision of the models; records are released after the step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.terms: dict[str, dict[str, Tensor]] = {}
        nameless = [name for name in self.distill_losses if 'loss' not in name]
        if nameless:
            raise DistillError(
                f'The distillation loss "{nameless[0]}" would only be logged, since MMEngine adds up what has "loss" '
                f'in its name; call it "loss_{nameless[0]}".'
            )
        for manager, side in ((self.student_recorders, True), (self.teacher_recorders, False)):
            idle = set(manager.recorders) - {record['recorder'] for record in self._records(from_student=side)}
            if idle:
                raise DistillError(
                    f'The {"student" if side else "teacher"} recorder "{sorted(idle)[0]}" is read by no loss; name it '
                    'in loss_forward_mappings or remove it.'
                )

    def init_weights(self) -> None:
        """Initialise connectors and losses, which MMRazor leaves out."""
        for part in (*self.connectors.values(), *self.distill_losses.values()):
            if hasattr(part, 'init_weights'):
                part.init_weights()

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Initialise the teacher's recorders; those that evaluate the student's samples learn where these lie."""
        super().prepare_from_teacher(model)
        for recorder in self.teacher_recorders.recorders.values():
            if hasattr(recorder, 'follow'):
                recorder.follow(self.student_recorders)

    def teacher_records_needed(self) -> dict[str, int]:
        """How many records of each teacher recorder the losses read."""
        needed: dict[str, int] = {}
        for record in self._records(from_student=False):
            name = record['recorder']
            needed[name] = max(needed.get(name, 0), record.get('record_idx', 0) + 1)
        return needed

    def compute_terms(self) -> dict[str, dict[str, Tensor]]:
        """Run connectors and losses on this step's records.

        Returns:
            The weighted terms by loss and term name; the key of a loss that returns one tensor is empty.
        """
        self.terms = {}
        for name in self.loss_forward_mappings:
            arguments = self.arguments(name)
            tensors: list[Tensor] = []
            _map(tensors.append, list(arguments.values()))
            device = tensors[0].device if tensors else torch.device('cpu')
            with torch.autocast(device.type, enabled=False):
                result = self._run(name, {key: _map(_full, item) for key, item in arguments.items()})
            self.terms[name] = result if isinstance(result, dict) else {'': result}
        return self.terms

    def arguments(self, name: str) -> dict[str, Any]:
        """What a loss is called with in this step: the records of its mapping, behind their connectors."""
        return {key: self._read(entry) for key, entry in self.loss_forward_mappings[name].items()}

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """MMRazor's entry point: the terms, levels added up."""
        return self.sum_levels(self.compute_terms())

    def sum_levels(self, terms: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Add the levels of each loss up, term by term; a term that the loss is named after is not named twice."""
        total: dict[str, Tensor] = {}
        for name, values in terms.items():
            for term, value in values.items():
                loss = name.partition(LEVEL)[0]
                key = loss if not term or loss.endswith(f'_{term}') else f'{loss}_{term}'
                total[key] = total[key] + value if key in total else value
        return total

    def student_features(self, name: str) -> list[Tensor]:
        """The student's recorded features that a loss reads, before any connector."""
        plain = ('recorder', 'record_idx', 'data_idx')
        found: list[Tensor] = []
        for record in _entries(self.loss_forward_mappings[name]):
            if record['from_student']:
                where = {key: record[key] for key in plain if key in record}
                _map(found.append, self.get_record(from_student=True, **where))
        return [feature for feature in found if feature.is_floating_point()]

    def release_records(self) -> None:
        """Drop the recorded tensors, which would otherwise live until the next step."""
        for manager in (self.student_recorders, self.teacher_recorders):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()
        self.terms = {}

    def _run(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a loss; what it refuses is told as a mistake of the user, with the loss's name."""
        try:
            return self.distill_losses[name](**arguments)
        except DistillError:
            raise
        except ValueError as error:
            raise DistillError(f'In "{name}": {error}') from error

    def _records(self, from_student: bool) -> list[dict]:
        """All entries of the mappings that read one side."""
        mappings = self.loss_forward_mappings.values()
        return [
            record for mapping in mappings for record in _entries(mapping) if record['from_student'] is from_student
        ]

    def _read(self, entry: dict | list[dict]) -> Any:
        """The record of a mapping entry, behind its connector; a list of them where the entry is a list."""
        if isinstance(entry, list):
            return [self.get_record(**record) for record in entry]
        return self.get_record(**entry)

    def _check_loss_forward_mappings(
        self, losses: Any, loss_forward_mappings: dict, student_recorders: Any, teacher_recorders: Any
    ) -> None:
        """Let MMRazor check every record of a list like a single one."""
        for name, mapping in loss_forward_mappings.items():
            for key, entry in mapping.items():
                for record in _as_list(entry):
                    super()._check_loss_forward_mappings(
                        losses, {name: {key: record}}, student_recorders, teacher_recorders
                    )


def _as_list(entry: dict | list[dict]) -> list[dict]:
    """The records of a mapping entry."""
    return entry if isinstance(entry, list) else [entry]


def _entries(mapping: dict) -> list[dict]:
    """All records that one loss reads."""
    return [record for entry in mapping.values() for record in _as_list(entry)]


def _map(function: Callable[[Tensor], Any], record: Any) -> Any:
    """Apply a function to every tensor of a record."""
    if isinstance(record, Tensor):
        return function(record)
    if isinstance(record, (list, tuple)):
        return [_map(function, item) for item in record]
    return record


def _full(tensor: Tensor) -> Tensor:
    """At least single precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
