"""Recorders of what the teacher's heads say about the student's anchors and RoIs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.razor import ModuleOutputsRecorder, RecorderManager
from mmkd_plugin.recorders.samples import RoISamplesRecorder, anchors_first, boxes_of_labels
from mmkd_plugin.registry import TASK_UTILS


class _PredictionsRecorder(ModuleOutputsRecorder):
    """Run a head of the teacher as soon as the features it reads exist.

    Args:
        source: Module that returns those features: the neck.
    """

    head: str

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Hook the features; the recorder itself keeps no part of the teacher, which copies would then hold."""
        assert model is not None
        head = model.get_submodule(self.head)

        def predict(module: nn.Module, inputs: tuple, outputs: Any) -> None:
            if self.recording:
                with torch.no_grad():
                    self.data_buffer.extend(self._predict(head, outputs))

        model.get_submodule(self.source).register_forward_hook(predict)

    @abstractmethod
    def _predict(self, head: Any, features: Any) -> list[tuple]:
        """The head's predictions as records."""


@TASK_UTILS.register_module()
class AnchorPredictionsRecorder(_PredictionsRecorder):
    """Predictions of a dense head for all its anchors, one record per level, in the order of the student's samples.

    ``data_idx`` 0 selects the logits, ``(M, C)``, 1 the encoded boxes, ``(M, 4)``.

    Args:
        source: Module that returns the features which the head reads: the neck.
        head: Path of the head, an ``AnchorHead``.
    """

    def __init__(self, source: str = 'neck', head: str = 'bbox_head') -> None:
        super().__init__(source)
        self.head = head

    def _predict(self, head: Any, features: Any) -> list[tuple]:
        columns = (head.cls_out_channels, 4)
        return [tuple(zip(level, columns)) for level in zip(*head(features))]

    def get_record_data(self, record_idx: int = 0, data_idx: int | None = None) -> Any:
        """The predictions of one level, anchors first."""
        record = super().get_record_data(record_idx)
        if data_idx is None:
            return [anchors_first(maps, columns) for maps, columns in record]
        return anchors_first(*record[data_idx])


@TASK_UTILS.register_module()
class RoIPredictionsRecorder(_PredictionsRecorder):
    """Predictions of the teacher's RoI head for the RoIs that the student sampled, one record.

    Proposals of the teacher's own are never made. ``data_idx`` 0 selects the logits, ``(M, C + 1)``, 1 the encoded
    boxes of the RoIs' labels, ``(M, 4)``.

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

    def _predict(self, head: Any, features: Any) -> list[tuple]:
        assert self._student is not None
        labels, rois = (
            self._student.get_record_data(0, self._student.fields.index(field)) for field in ('labels', 'rois')
        )
        if self.scale != 1:
            rois = torch.cat([rois[:, :1], rois[:, 1:] * self.scale], 1)
        results = head._bbox_forward((features,) if isinstance(features, Tensor) else features, rois)
        return [(results['cls_score'], boxes_of_labels(results['bbox_pred'], labels))]
