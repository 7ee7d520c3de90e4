"""What a teacher sees of the student's batch: another size, another normalisation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS

_BILINEAR: Any = dict(mode='bilinear', align_corners=False)
_SIZES = ('img_shape', 'pad_shape', 'batch_input_shape')


@MODELS.register_module()
class ShrinkBatch(nn.Module):
    """A batch augmentation of MMDetection that shrinks images and boxes for the student and keeps the large images.

    With ``distill.teacher_scale`` set to the same number the teacher sees the images as they were loaded, so that it
    has detail which the student lacks. It belongs into ``batch_augments`` of the student's ``data_preprocessor``, which
    apply to training alone; the test pipeline has to resize its images to the student's size.

    Args:
        scale: Size of the loaded images in those of the student.
    """

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, list]:
        """Shrink ``(N, 3, H, W)`` and the truth of the samples; bounding boxes stay plain tensors."""
        for image, sample in zip(inputs, data_samples):
            sample.loaded_image = image
            shapes = {key: tuple(math.ceil(side / self.scale) for side in sample.get(key)[:2]) for key in _SIZES}
            sample.set_metainfo(shapes)
            for name in ('gt_instances', 'ignored_instances'):
                instances = sample.get(name)
                if instances is None:
                    continue
                if 'bboxes' in instances:
                    instances.bboxes = instances.bboxes / self.scale
                if 'masks' in instances:
                    masks = instances.masks
                    instances.masks = masks.resize(
                        (math.ceil(masks.height / self.scale), math.ceil(masks.width / self.scale))
                    )
        return interpolate(inputs, scale_factor=1 / self.scale, **_BILINEAR, antialias=True), data_samples


def teacher_batch(batch: Tensor, data_samples: list | None, scale: float) -> tuple[Tensor, list | None]:
    """The batch as a teacher sees it that is given images of another size.

    Args:
        batch: The student's, ``(N, 3, H, W)``.
        data_samples: Its samples; where :class:`ShrinkBatch` kept the loaded images, these are taken.
        scale: Size of the teacher's images in the student's.

    Returns:
        The batch, ``(N, 3, scale * H, scale * W)``, bilinearly resized where nothing was kept, and samples that hold
        the sizes alone.

    Raises:
        DistillError: If the kept images have another size.
    """
    samples: list[Any] = data_samples or []
    kept = [sample.loaded_image for sample in samples if 'loaded_image' in sample]
    larger = torch.stack(kept) if kept else interpolate(batch, scale_factor=scale, **_BILINEAR, antialias=scale < 1)
    sizes = [[int(side * scale) for side in batch.shape[2:]], list(larger.shape[2:])]
    if sizes[0] != sizes[1]:
        raise DistillError(
            f"The teacher needs images of {sizes[0]} pixels, but the student's batch was shrunk from {sizes[1]}; set "
            'distill.teacher_scale to the scale of ShrinkBatch.'
        )
    resized = []
    for sample in samples:
        meta = dict(sample.metainfo)
        for key in meta.keys() & set(_SIZES):
            meta[key] = tuple(int(side * scale) for side in meta[key][:2])
        resized.append(type(sample)(metainfo=meta))
    return larger, None if data_samples is None else resized


class Renormalise(nn.Module):
    """Convert a batch from one mean, deviation and channel order to another.

    The batch keeps the student's augmentation; padding becomes the teacher's padding value.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, swap: bool, pad_value: float) -> None:
        super().__init__()
        self.register_buffer('scale', scale)
        self.register_buffer('shift', shift)
        self.swap = swap
        self.pad_value = pad_value

    @classmethod
    def between(cls, student: nn.Module | None, teacher: nn.Module | None) -> Renormalise | None:
        """The conversion between two preprocessors, or None where they agree or one of them does not normalise at all.

        A config without a preprocessor gets MMEngine's plain one, which says nothing about the images a model
        expects; such a teacher sees the student's.
        """
        if student is None or teacher is None:
            return None
        if not normalises_knowingly(student) or not normalises_knowingly(teacher):
            return None
        mean_s, std_s, swap_s = normalisation(student)
        mean_t, std_t, swap_t = normalisation(teacher)
        swap = swap_s != swap_t
        if not swap and torch.equal(mean_s, mean_t) and torch.equal(std_s, std_t):
            return None
        if swap:
            mean_s, std_s = mean_s.flip(0), std_s.flip(0)
        return cls(
            std_s / std_t,
            (mean_s - mean_t) / std_t,
            swap,
            float(getattr(teacher, 'pad_value', getattr(teacher, 'pad_val', 0))),
        )

    def forward(self, batch: Tensor, data_samples: list | None) -> Tensor:
        """Convert ``(N, 3, H, W)``."""
        batch = (batch.flip(1) if self.swap else batch) * self.scale + self.shift
        shapes = [sample.img_shape[:2] for sample in data_samples or [] if 'img_shape' in sample]
        if len(shapes) != len(batch):
            return batch
        height, width = batch.shape[-2:]
        limits = torch.tensor(shapes).to(batch.device, non_blocking=True)[:, :, None]
        rows = torch.arange(height, device=batch.device) < limits[:, 0]
        columns = torch.arange(width, device=batch.device) < limits[:, 1]
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(inside, batch, batch.new_full((), self.pad_value))


def normalises_knowingly(preprocessor: nn.Module | None) -> bool:
    """Whether a preprocessor says how it normalises, be it not at all, so that a batch can be converted to it."""
    return preprocessor is not None and hasattr(preprocessor, '_enable_normalize')


def normalisation_text(preprocessor: nn.Module) -> str:
    """Mean, deviation and channel order of a preprocessor that says how it normalises."""
    mean, std, swap = normalisation(preprocessor)
    values = [', '.join(f'{float(value):.5g}' for value in item.flatten()) for item in (mean, std)]
    return f'mean {values[0]}, std {values[1]}, channels {"swapped" if swap else "as loaded"}'


def normalisation(preprocessor: nn.Module) -> tuple[Tensor, Tensor, bool]:
    """What a preprocessor does to an image's values.

    Args:
        preprocessor: Of any model; one that does not normalise gives the identity.

    Returns:
        Mean and deviation as ``(3, 1, 1)``, and whether channels are swapped from the file's order.
    """
    swap = bool(getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)))
    if getattr(preprocessor, '_enable_normalize', False):
        # A tracker's have a dimension for the frames.
        mean, std = (preprocessor.get_buffer(name).float().cpu().reshape(-1, 1, 1) for name in ('mean', 'std'))
        return mean, std, swap
    return torch.zeros(3, 1, 1), torch.ones(3, 1, 1), swap
