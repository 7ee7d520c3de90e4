"""Recorders of what the teacher's heads say about the student's anchors and RoIs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmkd_plugin.compat.razor import ModuleOutputsRecorder, RecorderManager
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.recorders.samples import (
    AnchorSamplesRecorder,
    RoISamplesRecorder,
    anchors_first,
    boxes_of_labels,
)
from mmkd_plugin.registry import TASK_UTILS


class _PredictionsRecorder(ModuleOutputsRecorder):
    """Run a head of the teacher as soon as the features it reads exist.

    Args:
        source: Module that returns those features: the neck.
    """

    head: str
    fields = ('logits', 'boxes')

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Hook the features; the recorder itself keeps no part of the teacher, which copies would then hold."""
        assert model is not None
        head = model.get_submodule(self.head)

        def predict(module: nn.Module, inputs: tuple, outputs: Any) -> None:
            if self.recording:
                with torch.no_grad():
                    self.data_buffer.extend(self._predict(head, outputs))

        model.get_submodule(self.source).register_forward_hook(predict)

    def get_record_data(self, record_idx: int = 0, data_idx: str | None = None) -> Any:
        """Return one field of a record, or a dict of them all."""
        record = super().get_record_data(record_idx)
        if data_idx is None:
            return {field: self._field(record, field) for field in self.fields}
        if data_idx not in self.fields:
            raise DistillError(f'Predictions have no field "{data_idx}": {nearest(str(data_idx), self.fields)}')
        return self._field(record, data_idx)

    @abstractmethod
    def _predict(self, head: Any, features: Any) -> list[dict[str, Any]]:
        """The head's predictions as records."""

    def _field(self, record: dict[str, Any], field: str) -> Tensor:
        """One field of a record."""
        return record[field]


@TASK_UTILS.register_module()
class AnchorPredictionsRecorder(_PredictionsRecorder):
    """Predictions of a dense head for all its anchors, one record per level, in the order of the student's samples.

    ``data_idx`` names the field: ``'logits'``, ``(M, C)``, or ``'boxes'``, encoded, ``(M, 4)``.

    Networks that pad in other ways make maps of a few cells more or less from one image, on which equal strides place
    the same anchors from the same corner: of a larger map of the teacher the cells that the student has are taken, and
    in a smaller one the last cell stands for those behind it.

    Args:
        source: Module that returns the features which the head reads: the neck.
        head: Path of the head, an ``AnchorHead``.
        samples: Name of the student's ``AnchorSamples`` recorder, by whose maps the cells are taken; None for all.
        levels: For each level of the head that level of the student's which has its anchors, None for none; by default
            the one of the same number.
    """

    follows_student = False
    """The student's cells are taken when a record is read, not while the teacher runs."""

    def __init__(
        self,
        source: str = 'neck',
        head: str = 'bbox_head',
        samples: str | None = None,
        levels: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__(source)
        self.head = head
        self.samples = samples
        self.levels = levels
        self._student: AnchorSamplesRecorder | None = None

    def follow(self, student_recorders: RecorderManager) -> None:
        """Take the sizes of the maps from the student's recorder."""
        if self.samples is not None:
            self._student = student_recorders.get_recorder(self.samples)

    def _predict(self, head: Any, features: Any) -> list[dict[str, Any]]:
        return [dict(zip(self.fields, level), level=index) for index, level in enumerate(zip(*head(features)))]

    def _same_cells(self, maps: Tensor, index: int) -> Tensor:
        """A level's map, ``(N, A * columns, H, W)``, with the cells of the student's."""
        if self._student is None or (self.levels is not None and index >= len(self.levels)):
            return maps
        level = index if self.levels is None else self.levels[index]
        height, width = maps.shape[2:] if level is None else self._student.cells(level)
        maps = maps[:, :, :height, :width]
        missing = (0, width - maps.shape[3], 0, height - maps.shape[2])
        return pad(maps, missing, mode='replicate') if any(missing) else maps

    def _field(self, record: dict[str, Any], field: str) -> Tensor:
        # A box has 4 numbers, whatever the head.
        columns = dict(logits=4 * record['logits'].shape[1] // record['boxes'].shape[1], boxes=4)
        return anchors_first(self._same_cells(record[field], record['level']), columns[field])

    @property
    def place(self) -> str:
        """What is recorded, the same for all recorders of it."""
        return f'{self.head}({self.source})'

    def parts(self, record_idx: int, data_idx: str | None) -> list[tuple[int, str]]:
        """What must be kept of a step to read a record again: :meth:`part` gives each, :meth:`restore` takes them."""
        return [(record_idx, field) for field in self.fields]

    def part(self, record_idx: int, data_idx: str) -> Tensor:
        """One of :meth:`parts`: a map of all anchors, before it meets the student's cells."""
        return self.data_buffer[record_idx][data_idx]

    def restore(self, parts: dict[tuple[int, str], Tensor]) -> None:
        """Hold parts that were kept, in the place of a forward pass."""
        self.reset_data_buffer()
        for level in range(1 + max(level for level, _ in parts)):
            held = {field: value for (index, field), value in parts.items() if index == level}
            self.data_buffer.append(dict(held, level=level))


@TASK_UTILS.register_module()
class RoIPredictionsRecorder(_PredictionsRecorder):
    """Predictions of the teacher's RoI head for the RoIs that the student sampled, one record.

    Proposals of the teacher's own are never made. ``data_idx`` names the field: ``'logits'``, ``(M, C + 1)``, or
    ``'boxes'``, the encoded boxes of the RoIs' labels, ``(M, 4)``.

    Args:
        source: Module that returns the features which the RoI head reads: the neck.
        samples: Name of the student's ``RoISamples`` recorder.
        scale: Size of the teacher's input in the student's.
    """

    head = 'roi_head'

    def __init__(self, source: str = 'neck', samples: str = 'roi_samples', scale: float = 1.0) -> None:
        super().__init__(source)
        self.samples = samples
        self.scale = scale
        self._student: RoISamplesRecorder | None = None

    def follow(self, student_recorders: RecorderManager) -> None:
        """Take the RoIs from the student's recorder."""
        self._student = student_recorders.get_recorder(self.samples)

    def _predict(self, head: Any, features: Any) -> list[dict[str, Any]]:
        if self._student is None:
            raise DistillError(
                'RoIPredictions evaluate the RoIs that the student sampled, which mmkd_plugin.Distiller alone hands '
                'over; use it as the distiller.'
            )
        features = (features,) if isinstance(features, Tensor) else features
        fields = (self._student.get_record_data(0, field) for field in ('labels', 'rois'))
        device = features[0].device
        labels, rois = (item if item.device == device else item.to(device) for item in fields)
        if self.scale != 1:
            rois = torch.cat([rois[:, :1], rois[:, 1:] * self.scale], 1)
        results = head._bbox_forward(features, rois)
        return [dict(logits=results['cls_score'], boxes=boxes_of_labels(results['bbox_pred'], labels))]
