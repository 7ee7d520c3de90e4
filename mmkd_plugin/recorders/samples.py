"""Recorders of the anchors and RoIs that the student's own heads were trained on in this step."""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.razor import BaseRecorder
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import TASK_UTILS
from mmkd_plugin.utilities.distributed import mean_over_ranks


class _SamplesRecorder(BaseRecorder):
    """What a head hands to its own loss, so that nothing is sampled or assigned twice.

    The loss method is watched while records are taken and is the stock one otherwise. Fields are built when a loss
    reads them, so those that no loss reads cost nothing.

    Args:
        source: Path of the head in the model.

    Raises:
        DistillError: If the model has no such head, or the head computed no loss.
    """

    method: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Find the head."""
        assert model is not None
        self._head: Any = dict(model.named_modules()).get(self.source)
        if self._head is None:
            raise DistillError(
                f'The recorder\'s source "{self.source}" is not a module of {type(model).__name__}; name its head.'
            )
        self._built: dict[tuple[int, str], Tensor] = {}

    def __enter__(self) -> None:
        """Watch the head's loss method."""
        super().__enter__()
        original = getattr(self._head, self.method)
        signature = inspect.signature(original)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.data_buffer.append(signature.bind(*args, **kwargs).arguments)
            return original(*args, **kwargs)

        setattr(self._head, self.method, watched)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the head its own method back."""
        vars(self._head).pop(self.method, None)
        super().__exit__(kind, error, trace)

    def reset_data_buffer(self) -> None:
        """Drop the records and what was built from them."""
        super().reset_data_buffer()
        self._built = {}

    def get_record_data(self, record_idx: int = 0, data_idx: str | None = None) -> Any:
        """Return one field.

        Args:
            record_idx: Which call of the loss method.
            data_idx: Name of the field; by default all that were built so far, as a dict.

        Returns:
            A tensor, always the same object within a step.
        """
        if record_idx >= len(self.data_buffer):
            raise DistillError(
                f'The student\'s "{self.source}" computed {len(self.data_buffer)} losses in this step, so record '
                f'{record_idx} does not exist; choose a student that trains this head.'
            )
        if data_idx is None:
            return {field: value for (record, field), value in self._built.items() if record == record_idx}
        if data_idx not in self.fields:
            raise DistillError(
                f'The samples of "{self.source}" have no field "{data_idx}": {nearest(str(data_idx), self.fields)}'
            )
        key = (record_idx, data_idx)
        if key not in self._built:
            self._built[key] = getattr(self, f'_{data_idx}')(self.data_buffer[record_idx])
        return self._built[key]


@TASK_UTILS.register_module()
class AnchorSamplesRecorder(_SamplesRecorder):
    """Anchors of a dense head, one record per level, all images in succession.

    The M anchors of a level lie in the order of its cells, those of a cell in succession. ``data_idx`` names the field:

    - ``'logits'``: the student's, ``(M, C)``;
    - ``'boxes'``: its regressed boxes, ``(M, 4)``, encoded;
    - ``'label_weights'``: of each anchor in the head's classification loss, ``(M,)``, 0 for those not sampled;
    - ``'targets'``: of the regression, ``(M, 4)``, encoded;
    - ``'box_weights'``: in the regression loss, ``(M,)``, 0 for all but positives;
    - ``'avg_factor'``: what the head divides its losses by, averaged over ranks, ``()``;
    - ``'images'`` and ``'sampled'``: the images, and the sum of ``'label_weights'`` over all levels, averaged likewise.

    Args:
        source: Path of the head, an ``AnchorHead``.
    """

    method = 'loss_by_feat_single'
    fields = ('logits', 'boxes', 'label_weights', 'targets', 'box_weights', 'avg_factor', 'images', 'sampled')
    _counts = ('avg_factor', 'images', 'sampled')
    _shared: Tensor | None = None

    def reset_data_buffer(self) -> None:
        """Drop the records and what was built from them."""
        super().reset_data_buffer()
        self._shared = None

    def cells(self, record_idx: int) -> tuple[int, int]:
        """Height and width of a level's map."""
        height, width = self.data_buffer[record_idx]['cls_score'].shape[2:]
        return height, width

    def _logits(self, call: dict[str, Any]) -> Tensor:
        return anchors_first(call['cls_score'], self._head.cls_out_channels)

    def _boxes(self, call: dict[str, Any]) -> Tensor:
        return anchors_first(call['bbox_pred'], 4)

    def _label_weights(self, call: dict[str, Any]) -> Tensor:
        return call['label_weights'].reshape(-1)

    def _targets(self, call: dict[str, Any]) -> Tensor:
        return call['bbox_targets'].reshape(-1, 4)

    def _box_weights(self, call: dict[str, Any]) -> Tensor:
        return call['bbox_weights'].reshape(-1, 4)[:, 0]

    def _avg_factor(self, call: dict[str, Any]) -> Tensor:
        return self._count('avg_factor')

    def _images(self, call: dict[str, Any]) -> Tensor:
        return self._count('images')

    def _sampled(self, call: dict[str, Any]) -> Tensor:
        return self._count('sampled')

    def _count(self, field: str) -> Tensor:
        """One of the numbers that all levels share; ranks exchange them together, once a step."""
        if self._shared is None:
            first = self.data_buffer[0]
            weights = first['label_weights']
            counts = (
                weights.new_ones(()) * first['avg_factor'],
                weights.new_full((), len(weights)),
                torch.stack([call['label_weights'].sum() for call in self.data_buffer]).sum(),
            )
            self._shared = mean_over_ranks(torch.stack(counts))
        return self._shared[self._counts.index(field)]


@TASK_UTILS.register_module()
class RoISamplesRecorder(_SamplesRecorder):
    """RoIs that a box head was trained on, one record with those of all images.

    ``data_idx`` names a field as in :class:`AnchorSamplesRecorder`, without the last three; a box that is regressed
    for each class is that of the RoI's label. There are further:

    - ``'labels'``: ``(M,)``, the number of classes for background;
    - ``'rois'``: ``(M, 5)``: index of the image, ``x1 y1 x2 y2`` in pixels of the student's input.

    Args:
        source: Path of the head, a ``BBoxHead``.
    """

    method = 'loss'
    fields = ('logits', 'boxes', 'label_weights', 'targets', 'box_weights', 'labels', 'rois')

    def _logits(self, call: dict[str, Any]) -> Tensor:
        return call['cls_score']

    def _boxes(self, call: dict[str, Any]) -> Tensor:
        return boxes_of_labels(call['bbox_pred'], call['labels'])

    def _label_weights(self, call: dict[str, Any]) -> Tensor:
        return call['label_weights']

    def _targets(self, call: dict[str, Any]) -> Tensor:
        return call['bbox_targets']

    def _box_weights(self, call: dict[str, Any]) -> Tensor:
        return call['bbox_weights'][:, 0]

    def _labels(self, call: dict[str, Any]) -> Tensor:
        return call['labels']

    def _rois(self, call: dict[str, Any]) -> Tensor:
        return call['rois'].detach()


def anchors_first(maps: Tensor, columns: int) -> Tensor:
    """Turn ``(N, A * columns, H, W)`` into ``(N * H * W * A, columns)``, the order of MMDetection's targets."""
    return maps.permute(0, 2, 3, 1).reshape(-1, columns)


def boxes_of_labels(boxes: Tensor, labels: Tensor) -> Tensor:
    """The regressed box of each RoI's own class.

    Args:
        boxes: ``(M, 4)`` for all classes together, or ``(M, 4 * C)``.
        labels: ``(M,)``; the background, C, gets the last class's box, which no loss counts.

    Returns:
        ``(M, 4)``.
    """
    classes = boxes.shape[1] // 4
    if classes == 1:
        return boxes
    index = labels.clamp(max=classes - 1)[:, None, None].expand(-1, 1, 4)
    return boxes.view(len(boxes), classes, 4).gather(1, index)[:, 0]
