"""A batch for FGD, and FGD as its definition reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def random_batch() -> tuple[Any, ...]:
    """Arguments of the loss for two images."""
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[[5.0, 6, 24, 20], [20, 8, 38, 30]], [[0, 0, 9, 9], [0, 0, 0, 0]]])
    valid, shapes = torch.tensor([[True, True], [True, False]]), torch.tensor([[32, 40], [30, 36]])
    return student, teacher, boxes, valid, shapes, None, lambda x: x.mean((2, 3), keepdim=True)


def plain_masks(boxes: Tensor, valid: Tensor, shapes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The masks box by box, as FGD's definition reads."""
    foreground = torch.zeros(len(boxes), *size, dtype=torch.float64)
    for image, index in valid.nonzero().tolist():
        (x1, y1, x2, y2), (height, width) = boxes[image, index].tolist(), shapes[image].tolist()
        if (x1 < 0 and x2 <= 0) or (y1 < 0 and y2 <= 0) or x2 < x1 or y2 < y1:
            continue
        left, right = max(math.floor(x1 / width * size[1]), 0), math.ceil(x2 / width * size[1])
        top, bottom = max(math.floor(y1 / height * size[0]), 0), math.ceil(y2 / height * size[0])
        weight = 1 / max(bottom + 1 - top, 1) / max(right + 1 - left, 1)
        cells = foreground[image, top : bottom + 1, left : right + 1]
        cells.clamp_(min=weight)
    empty = (foreground == 0).double()
    return foreground, empty / empty.sum((1, 2), keepdim=True).clamp(min=1)


def plain_terms(student: Tensor, teacher: Tensor, masks: tuple[Tensor, Tensor], temperature: float) -> list[Tensor]:
    """The terms, a step for every line of the paper, with the mean over the cells as context of both sides."""
    images, channels, height, width = student.shape

    def attention(feature: Tensor) -> tuple[Tensor, Tensor]:
        cells = (feature.abs().mean(1) / temperature).flatten(1).softmax(1).view(images, height, width)
        return height * width * cells, channels * (feature.abs().mean((2, 3)) / temperature).softmax(1)

    (cells, values), (of_cells, of_values) = attention(student), attention(teacher)
    weighed = of_cells[:, None] * of_values[..., None, None] * (student - teacher) ** 2
    related = [feature + feature.mean((2, 3), keepdim=True) for feature in (student, teacher)]
    return [
        (masks[0][:, None] * weighed).sum() / images,
        (masks[1][:, None] * weighed).sum() / images,
        ((cells - of_cells).abs().sum() + (values - of_values).abs().sum()) / images,
        ((related[0] - related[1]) ** 2).sum() / images,
    ]
