"""FGI in the ``distill`` block."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Union

from mmengine.logging import print_log

from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.probe.models import LevelPair, ModelPair


@dataclasses.dataclass
class FGI(Method):
    """Fine-grained feature imitation near objects, Wang et al., CVPR 2019.

    Attributes:
        imitation_weight: Lambda of the paper.
        psi: Share of a box's largest IoU that an anchor must exceed to light its cell.
        reading: How a pyramid is read: ``'assigned'`` lights only the level that a box belongs to by its size,
            ``'all'`` every level against its own maximum, ``'global'`` every level against one maximum.
        region: ``'anchors'`` is the method; ``'boxes'`` (cells that a ground-truth box touches) and ``'all'`` (the
            whole map) are the paper's ablations and need no anchors.
        plus_one_pixel: Whether the IoU counts the last pixel, as the released code does.
        base_size: Boxes below twice this side in pixels belong to the finest level, and each further level doubles it.
            56 suits anchors that start at 32 pixels, as those of the stock RPN and RetinaNet do.
        relu: Whether a ReLU follows the adaptation; ``'auto'`` where the teacher's map comes from one.
        tap: ``'output'`` takes what the neck returns, ``'pre_norm'`` each level's last convolution.
    """

    imitation_weight: float = 0.01
    psi: float = 0.5
    reading: Literal['assigned', 'all', 'global'] = 'assigned'
    region: Literal['anchors', 'boxes', 'all'] = 'anchors'
    plus_one_pixel: bool = False
    base_size: float = 56.0
    relu: Union[bool, Literal['auto']] = 'auto'  # noqa: UP007
    tap: Literal['output', 'pre_norm'] = 'output'

    @property
    def active(self) -> bool:
        """Whether the term has a weight."""
        return self.weight != 0 and self.imitation_weight != 0

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss over all levels, since a box is assigned to one of them."""
        if not 0 <= self.psi <= 1:
            raise DistillError(
                f'"distill.methods.{name}.psi" is {self.psi}; it is a share of the largest IoU and must lie between '
                '0 and 1.'
            )
        parts = Parts()
        levels = models.levels(self.tap)
        extra: dict[str, Any] = {}
        finest = models.student.output[0].stride
        if self.region == 'anchors':
            levels = self._with_anchors(name, levels, models)
            finest = min(models.student.anchor_strides)
            extra['priors'] = [_record_anchors(parts, level, models) for level in levels]
        loss = f'loss_{name}'
        students, teachers = [], []
        for index, level in enumerate(levels):
            relu = level.teacher.nonnegative if self.relu == 'auto' else self.relu
            name_of_level = f'{loss}_level{index}'
            student, teacher = parts.record_level(name_of_level, level, always=True, kernel_size=3, relu=relu)
            students.append(student)
            teachers.append(teacher)
        strides = [level.student.stride for level in levels]
        parts.distill_losses[loss] = dict(
            type='mmkd_plugin.FGILoss',
            imitation_weight=self.imitation_weight,
            psi=self.psi,
            reading=self.reading,
            region=self.region,
            plus_one_pixel=self.plus_one_pixel,
            # Where the finest levels are left out, the boxes of the next one are that much larger.
            base_size=self.base_size * strides[0] / finest,
            strides=strides,
            loss_weight=self.weight,
        )
        truth = parts.record_ground_truth()
        parts.loss_forward_mappings[loss] = dict(
            student=students, teacher=teachers, boxes=truth['boxes'], valid=truth['valid'], **extra
        )
        return parts

    def _with_anchors(self, name: str, levels: list[LevelPair], models: ModelPair) -> list[LevelPair]:
        """The levels on which the student's head places anchors."""
        strides = models.student.anchor_strides
        if not strides:
            raise DistillError(
                f'FGI compares anchors with the ground truth, but the head of the student, {models.student.name}, has '
                f"no fixed anchors (points or queries, say); set distill.methods.{name}.region='boxes'."
            )
        kept = [level for level in levels if models.student.anchor_level(level.student.stride) is not None]
        if not kept:
            raise DistillError(
                f'The student, {models.student.name}, places anchors at the strides {list(strides)}, but levels of '
                f'student and teacher agree at {[level.student.stride for level in levels]} alone; set '
                f"distill.methods.{name}.region='boxes'."
            )
        left = [level.student.stride for level in levels if level not in kept]
        if left:
            print_log(f'Student levels of stride {left} carry no anchors and are not distilled by FGI.', 'current')
        return kept


def _record_anchors(parts: Parts, level: LevelPair, models: ModelPair) -> dict[str, Any]:
    """Add the recorder of the student's anchors and return the mapping entry of one level."""
    taps = models.student.output
    levels: list[int | None] = [None] * (1 + max(tap.data_idx or 0 for tap in taps))
    for tap in taps:
        levels[tap.data_idx or 0] = models.student.anchor_level(tap.stride)
    parts.student_recorders['priors'] = dict(type='mmkd_plugin.Priors', source=taps[0].source, levels=levels)
    index = next(tap.data_idx or 0 for tap in taps if tap.stride == level.student.stride)
    return dict(recorder='priors', from_student=True, data_idx=index)
