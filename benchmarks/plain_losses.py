"""The losses as one writes them first: a step for every line of a paper, loops over boxes, gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_plugin.functional import box_levels, node_similarity
from mmkd_plugin.methods import FGDLoss


def plain_masks(boxes: Tensor, height: int, width: int, image: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Foreground and background of one image as one writes them first: a loop over its boxes."""
    foreground = boxes.new_zeros(height, width)
    for box in boxes:
        x1, x2 = int(torch.floor(box[0] / image[1] * width)), int(torch.ceil(box[2] / image[1] * width))
        y1, y2 = int(torch.floor(box[1] / image[0] * height)), int(torch.ceil(box[3] / image[0] * height))
        weight = boxes.new_tensor(1 / (y2 + 1 - y1) / (x2 + 1 - x1))
        cells = foreground[y1 : y2 + 1, x1 : x2 + 1]
        foreground[y1 : y2 + 1, x1 : x2 + 1] = torch.maximum(cells, weight)
    background = (foreground == 0).to(boxes.dtype)
    return foreground, background / background.sum().clamp(min=1)


def plain_context(feature: Tensor, block: Any) -> Tensor:
    """A context block as one writes it first."""
    weight = block.conv_mask(feature).flatten(2).softmax(2)
    pooled = torch.matmul(feature.flatten(2), weight.transpose(1, 2))
    return feature + block.channel_add_conv(pooled[..., None])


def plain_fgd(student: Tensor, teacher: Tensor, boxes: Tensor, image: tuple[int, int], module: FGDLoss) -> Tensor:
    """The weighted sum of FGD's terms on one level, a step for every line of the paper."""
    count, channels, height, width = student.shape
    masks = [plain_masks(of_image, height, width, image) for of_image in boxes]
    foreground, background = (torch.stack(side)[:, None] for side in zip(*masks))

    def attention(feature: Tensor) -> tuple[Tensor, Tensor]:
        cells = feature.abs().mean(1, keepdim=True).flatten(2) / module.temperature
        values = feature.abs().mean((2, 3)) / module.temperature
        spatial = height * width * cells.softmax(2).view(count, 1, height, width)
        return spatial, channels * values.softmax(1)[..., None, None]

    (student_spatial, student_channel), (teacher_spatial, teacher_channel) = attention(student), attention(teacher)

    def masked(mask: Tensor) -> Tensor:
        weight = torch.sqrt(mask) * torch.sqrt(teacher_spatial) * torch.sqrt(teacher_channel)
        return nn.functional.mse_loss(student * weight, teacher * weight, reduction='sum') / count

    terms = {
        'foreground': masked(foreground),
        'background': masked(background),
        'attention': ((student_spatial - teacher_spatial).abs().sum() + (student_channel - teacher_channel).abs().sum())
        / count,
        'relation': nn.functional.mse_loss(
            plain_context(student, module.student_context),
            plain_context(teacher, module.teacher_context),
            reduction='sum',
        )
        / count,
    }
    return torch.stack([weight * terms[name] for name, weight in module.weights.items()]).sum()


def plain_imitation(
    anchors: Sequence[Tensor], boxes: Tensor, sizes: Sequence[tuple[int, int]], psi: float, base_size: float
) -> list[Tensor]:
    """FGI's lit cells, every box of every image by itself against all anchors of its level."""
    masks = [torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device) for size in sizes]
    for image, of_image in enumerate(boxes):
        for box, level in zip(of_image, box_levels(of_image, len(anchors), base_size).tolist()):
            priors = anchors[level]
            corner, end = torch.maximum(priors[:, :2], box[:2]), torch.minimum(priors[:, 2:], box[2:])
            common = (end - corner).clamp(min=0).prod(1)
            iou = common / ((box[2:] - box[:2]).prod() + (priors[:, 2:] - priors[:, :2]).prod(1) - common)
            masks[level][image] |= (iou > psi * iou.max()).view(*sizes[level], -1).any(-1)
    return masks


def plain_fgi(students: Sequence[Tensor], teachers: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """FGI's distance on the lit cells."""
    found = []
    for student, teacher, mask in zip(students, teachers, masks):
        distance = ((student - teacher) ** 2 * mask[:, None]).sum()
        found.append(distance / (2 * mask.sum().clamp(min=1)))
    return torch.stack(found).sum()


def plain_pair(student: Tensor, teacher: Tensor) -> Tensor:
    """The paper's pairs: averages of 2 x 2 cells, and both matrices of similarities."""
    pooled = (nn.functional.avg_pool2d(feature, 2, 2, ceil_mode=True) for feature in (student, teacher))
    ours, theirs = (node_similarity(feature) for feature in pooled)
    return ((theirs - ours) ** 2).mean()


def plain_chen(student: Tensor, teacher: Tensor, background_weight: float) -> Tensor:
    """Chen's cross-entropy for a sigmoid per class, summed over anchors and classes."""
    background = background_weight * (1 - teacher.sigmoid()) * nn.functional.logsigmoid(-student)
    return -(background + teacher.sigmoid() * nn.functional.logsigmoid(student)).sum()
