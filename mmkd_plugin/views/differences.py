"""How far a student's features lie from its teacher's, cell by cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from mmkd_plugin.functional.fgd import spatial_attention
from mmkd_plugin.views.drawing import heat_maps, heat_size


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is compared.

    Attributes:
        label: In words, for the scale.
        of_values: Whether the features themselves are, or else their spatial attention, which any two widths have.
    """

    label: str
    of_values: bool


VALUES = Measure('mean |student - teacher|', True)
ATTENTION = Measure('spatial attention apart by', False)


def differences(
    pairs: Sequence[tuple[Tensor, Tensor]], measure: Measure, temperature: float, index: int = 0
) -> list[Tensor]:
    """The difference of student and teacher in each cell.

    Args:
        pairs: The features of student and teacher at each level, ``(N, C, H, W)``.
        measure: How.
        temperature: Of the attention.
        index: Of the image in the batch.

    Returns:
        ``(H, W)`` for each level.
    """
    found = []
    for student, teacher in pairs:
        student, teacher = student[index : index + 1], teacher[index : index + 1]
        if measure.of_values:
            difference = (student - teacher).abs().mean(1)
        else:
            difference = (spatial_attention(student, temperature) - spatial_attention(teacher, temperature)).abs()
        found.append(difference[0].cpu())
    return found


def differences_figure(image: np.ndarray, students: Mapping[str, Sequence[Tensor]], measure: Measure) -> Figure:
    """The differences over the image, a row for each student with its mean, on one scale.

    Args:
        image: As the network sees it, ``(H, W, 3)`` RGB.
        students: Of each level by the student's name.
        measure: What was compared.

    Returns:
        The figure.
    """
    levels = len(next(iter(students.values())))
    figure = Figure(figsize=heat_size(image, len(students), levels), layout='constrained')
    rows = {}
    for name, maps in students.items():
        mean = sum(float(value.mean()) for value in maps) / len(maps)
        rows[f'{name}\nmean {mean:.3g}'] = maps
    heat_maps(figure, image, rows, measure.label)
    return figure
