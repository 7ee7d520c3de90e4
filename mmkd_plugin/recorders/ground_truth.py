"""Recorder of the ground truth that the student is trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmkd_plugin.compat.razor import ModuleInputsRecorder
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import TASK_UTILS


class GroundTruth(NamedTuple):
    """Boxes of a batch in one tensor; every image is padded to the largest number of boxes.

    Attributes:
        boxes: ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input; zeros where padded.
        valid: ``(N, B)`` bool, False where padded.
        image_shapes: ``(N, 2)``, height and width of each image before padding.
        labels: ``(N, B)`` class indices; -1 where padded.
    """

    boxes: Tensor
    valid: Tensor
    image_shapes: Tensor
    labels: Tensor


@TASK_UTILS.register_module()
class GroundTruthRecorder(ModuleInputsRecorder):
    """The batch's boxes as padded tensors, taken from the inputs of the student itself.

    The student sees the batch after every augmentation, so the boxes agree with the features. ``data_idx`` selects a
    field of :class:`GroundTruth`: 0 boxes, 1 valid, 2 image shapes, 3 labels. Nothing waits for the device: sizes are
    those that the host knows already.

    Args:
        source: Module whose inputs are ``(batch, data_samples)``; the empty path is the model itself.
    """

    def __init__(self, source: str = '') -> None:
        super().__init__(source)

    def forward_hook(self, module: nn.Module, inputs: tuple, outputs: Any) -> None:
        """Collate the boxes of the data samples, once per step."""
        if self.recording:
            batch, samples = inputs[:2]
            self.data_buffer.append(collate_ground_truth(samples, batch.device))


def collate_ground_truth(samples: list, device: torch.device) -> GroundTruth:
    """Pad the ground-truth boxes of a batch into one tensor.

    Args:
        samples: Data samples with ``gt_instances.bboxes`` (and ``labels``) and ``img_shape``.
        device: Where the image sizes go; the boxes lie there already.

    Returns:
        The padded ground truth; ``B`` is 0 where no image has a box.

    Raises:
        DistillError: If a sample has no boxes of the form ``x1 y1 x2 y2``.
    """
    boxes, labels, shapes = [], [], []
    for sample in samples:
        instances = getattr(sample, 'gt_instances', None)
        if instances is None or 'bboxes' not in instances:
            raise DistillError(
                'The method needs ground-truth boxes, but the data samples hold no gt_instances.bboxes; add '
                "with_bbox=True to LoadAnnotations in the student's training pipeline."
            )
        image_boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
        if image_boxes.shape[-1] != 4:
            raise DistillError(
                f'The method needs horizontal boxes with 4 numbers, but the data set gives {image_boxes.shape[-1]}.'
            )
        boxes.append(image_boxes)
        labels.append(instances.labels if 'labels' in instances else image_boxes.new_zeros(len(image_boxes)).long())
        shapes.append(tuple(sample.img_shape[:2]))
    counts = [len(item) for item in boxes]
    most = max(counts)
    padded = pad_sequence(boxes, batch_first=True) if most else boxes[0].new_zeros((len(boxes), 0, 4))
    padded_labels = (
        pad_sequence(labels, batch_first=True, padding_value=-1) if most else labels[0].new_zeros((len(boxes), 0))
    )
    valid = torch.arange(most)[None] < torch.tensor(counts)[:, None]
    return GroundTruth(
        boxes=padded,
        valid=valid.to(device, non_blocking=True),
        image_shapes=torch.tensor(shapes).to(device, non_blocking=True),
        labels=padded_labels,
    )
