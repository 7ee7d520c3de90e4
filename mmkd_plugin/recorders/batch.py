"""Recorder of the facts of a batch: images, boxes, labels, label maps."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Dict, List, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmkd_plugin.compat.razor import ModuleInputsRecorder
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import TASK_UTILS
from mmkd_plugin.utilities.clips import key_frames


class _Batch(NamedTuple):
    """What the student was given, the key frames of clips alone: the images and their data samples."""

    images: Tensor
    samples: List[Any]


@TASK_UTILS.register_module()
class BatchRecorder(ModuleInputsRecorder):
    """Facts of the batch by name, taken from the inputs of the student itself.

    The student sees the batch after every augmentation, so they agree with its features. A fact is built when a loss
    reads it, once per step, and those that no loss reads cost nothing. Nothing waits for the device: sizes are those
    that the host knows already. ``data_idx`` names the fact:

    - ``'image'``: the preprocessed images, ``(N, 3, H, W)``;
    - ``'boxes'``: ground-truth boxes, ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input; every image is
      padded to the largest number of boxes with zeros;
    - ``'valid'``: ``(N, B)`` bool, False where ``boxes`` is padding;
    - ``'labels'``: class indices of the boxes, ``(N, B)``, -1 where padded;
    - ``'image_shapes'``: ``(N, 2)``, height and width of each image before padding;
    - ``'label'``: the label map of a segmentor, ``(N, H, W)``.

    Args:
        source: Module whose inputs are ``(batch, data_samples)``; the empty path is the model itself.

    Raises:
        DistillError: If a fact does not exist or the data samples do not hold it.
    """

    facts: ClassVar[Dict[str, Callable[[_Batch], Tensor]]]

    def __init__(self, source: str = '') -> None:
        super().__init__(source)
        self._built: Dict[str, Tensor] = {}

    def forward_hook(self, module: nn.Module, inputs: tuple, outputs: Any) -> None:
        """Keep the batch, once per step."""
        if self.recording:
            images, samples = key_frames(inputs[0], inputs[1] if len(inputs) > 1 else None)
            self.data_buffer.append(_Batch(images, samples or []))

    def reset_data_buffer(self) -> None:
        """Drop the batch and what was built from it."""
        super().reset_data_buffer()
        self._built = {}

    def get_record_data(self, record_idx: int = 0, data_idx: Optional[str] = None) -> Any:
        """Return one fact.

        Args:
            record_idx: There is one batch in a step, 0.
            data_idx: Name of the fact; by default all that were built so far, as a dict.

        Returns:
            A tensor, always the same object within a step.
        """
        if data_idx is None:
            return dict(self._built)
        if data_idx not in self.facts:
            raise DistillError(f'A batch has no fact "{data_idx}": {nearest(str(data_idx), self.facts)}')
        if record_idx >= len(self.data_buffer):
            raise DistillError(
                f'The student ran {len(self.data_buffer)} times in this step, so there is no batch {record_idx}.'
            )
        if data_idx not in self._built:
            self._built[data_idx] = self.facts[data_idx](self.data_buffer[record_idx])
        return self._built[data_idx]


def _boxes(batch: _Batch) -> Tensor:
    boxes = [getattr(instances.bboxes, 'tensor', instances.bboxes) for instances in _instances(batch)]
    for item in boxes:
        if item.shape[-1] != 4:
            raise DistillError(
                f'The method needs horizontal boxes with 4 numbers, but the data set gives {item.shape[-1]}.'
            )
    if not max(len(item) for item in boxes):
        return boxes[0].new_zeros((len(boxes), 0, 4))
    return pad_sequence(boxes, batch_first=True)


def _valid(batch: _Batch) -> Tensor:
    counts = [len(instances.bboxes) for instances in _instances(batch)]
    valid = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    return valid.to(batch.images.device, non_blocking=True)


def _labels(batch: _Batch) -> Tensor:
    found = _instances(batch)
    if any('labels' not in instances for instances in found):
        raise DistillError(
            'The method needs the classes of the boxes, but the data samples hold no gt_instances.labels; add '
            "with_label=True to LoadAnnotations in the student's training pipeline."
        )
    labels = [instances.labels for instances in found]
    if not max(len(item) for item in labels):
        return labels[0].new_zeros((len(labels), 0))
    return pad_sequence(labels, batch_first=True, padding_value=-1)


def _image_shapes(batch: _Batch) -> Tensor:
    shapes = [tuple(sample.img_shape[:2]) for sample in batch.samples]
    return torch.tensor(shapes).to(batch.images.device, non_blocking=True)


def _label(batch: _Batch) -> Tensor:
    if any(getattr(sample, 'gt_sem_seg', None) is None for sample in batch.samples or [None]):
        raise DistillError(
            'The method needs label maps, but the data samples hold no gt_sem_seg; add LoadAnnotations to the '
            "student's training pipeline, for a detector with with_seg=True."
        )
    return torch.cat([sample.gt_sem_seg.data for sample in batch.samples])


def _instances(batch: _Batch) -> List[Any]:
    """The ground-truth instances of every image.

    Raises:
        DistillError: If a sample has no boxes.
    """
    found = [getattr(sample, 'gt_instances', None) for sample in batch.samples or [None]]
    if any(instances is None or 'bboxes' not in instances for instances in found):
        raise DistillError(
            'The method needs ground-truth boxes, but the data samples hold no gt_instances.bboxes; add '
            "with_bbox=True to LoadAnnotations in the student's training pipeline."
        )
    return found


BatchRecorder.facts = {
    'boxes': _boxes,
    'valid': _valid,
    'image_shapes': _image_shapes,
    'labels': _labels,
    'label': _label,
    'image': lambda batch: batch.images,
}
