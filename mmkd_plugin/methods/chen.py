"""Chen et al. 2017 in the ``distill`` block."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from mmengine.logging import print_log

from mmkd_plugin.distillers.distiller import LEVEL
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.probe.boxes import BoxHeadPair
from mmkd_plugin.probe.models import ModelPair
from mmkd_plugin.recorders.samples import AnchorSamplesRecorder, RoISamplesRecorder

_LABELS = {'rpn_head': 'rpn', 'bbox_head': 'dense', 'roi_head.bbox_head': 'roi'}
"""What a head is called in the names of losses."""


@dataclasses.dataclass
class Chen(Method):
    """Classes, boxes and features of a detector, Chen et al., NIPS 2017.

    A detector's heads are compared on the anchors and RoIs that the student itself was trained on in the step: the RPN
    and the RoI head of a two-stage detector, the head of a one-stage one.

    Attributes:
        mu: Share of the student's own classification losses; the teacher's soft ones have 1 - mu. 1 switches
            classification off.
        background_weight: Weight of the background's column, or of "not this class" where each has a sigmoid; 1 is the
            paper's unweighted ablation.
        temperature: Of both softmaxes or sigmoids.
        regression_weight: Nu; 0 switches regression off.
        regression: ``'bounded'``, or ``'l2'``: the squared distance to the teacher's boxes, the paper's ablation.
        margin: How much better than the teacher a box must be to be left alone, in squared encoded distance.
        hint_weight: Gamma; 0 switches the hint off.
        hint_adapt: Whether a 1x1 convolution adapts the student's features, as it does even where widths agree.
        hint_norm: ``'l2'`` (squared) or ``'l1'``.
        hint_reduction: ``'mean'`` over elements, ``'batch'`` (sum of an image) or ``'sum'``.
        tap: The hint: ``'output'`` takes what the neck returns, ``'pre_norm'`` each level's last convolution.
        heads: Which heads are compared: ``'all'``, the ``'dense'`` one alone or the ``'roi'`` head alone.
    """

    mu: float = 0.5
    background_weight: float = 1.5
    temperature: float = 1.0
    regression_weight: float = 0.5
    regression: Literal['bounded', 'l2'] = 'bounded'
    margin: float = 0.0
    hint_weight: float = 0.5
    hint_adapt: bool = True
    hint_norm: Literal['l2', 'l1'] = 'l2'
    hint_reduction: Literal['mean', 'batch', 'sum'] = 'mean'
    tap: Literal['output', 'pre_norm'] = 'output'
    heads: Literal['all', 'dense', 'roi'] = 'all'

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        super().__post_init__()
        if not 0 <= self.mu <= 1:
            raise DistillError(f'The mu of Chen is {self.mu:g}; it must lie between 0 and 1.')

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        return self.weight != 0 and (self.mu != 1 or self.regression_weight != 0 or self.hint_weight != 0)

    def expand(self, name: str, models: ModelPair) -> Parts:
        """Losses on every head and, for the hint, on every level."""
        parts = Parts()
        if self.mu != 1 or self.regression_weight:
            # The boxes of an RoI are those of its class.
            parts.same_classes = True
            where = f'distill.methods.{name}'
            remedy = f'set {where}.mu=1 and {where}.regression_weight=0'
            for pair in models.box_heads(self.heads, remedy=remedy):
                self._compare(parts, f'loss_{name}_{_LABELS.get(pair.student.path, "roi")}', pair, models, where)
        if self.hint_weight:
            self._hint(parts, f'loss_{name}_hint', models)
        return parts

    def _compare(self, parts: Parts, loss: str, pair: BoxHeadPair, models: ModelPair, where: str) -> None:
        """Classification and regression of one head."""
        student, teacher = pair.student, pair.teacher
        remedy = f'set {where}.mu=1 and {where}.regression_weight=0'
        if models.student.roi_head is not None and models.student.dense_head is not None:
            remedy = f"set {where}.heads='{'roi' if student.path == 'rpn_head' else 'dense'}'"
        pair.require_readable(remedy)
        if self.mu != 1:
            pair.require_same_classes()
        if self.regression_weight:
            pair.require_same_boxes(f'set {where}.regression_weight=0')
        samples = f'{student.path.replace(".", "_")}_samples'
        predictions = f'{teacher.path.replace(".", "_")}_predictions'
        parts.student_recorders[samples] = dict(type=f'mmkd_plugin.{student.samples}', source=student.path)
        if student.anchors:
            parts.teacher_recorders[predictions] = dict(
                type='mmkd_plugin.AnchorPredictions', source=models.teacher.output[0].source, head=teacher.path
            )
            levels = pair.levels(remedy)
            if len(levels) < len(student.anchors):
                strides = [f'{level.stride:g}' for level in student.anchors]
                left = [stride for index, stride in enumerate(strides) if index not in dict(levels)]
                print_log(
                    f'The teacher has no anchors at the stride {", ".join(left)}; these are not distilled.', 'current'
                )
            names = [f'{LEVEL}{index}' for index in range(len(levels))]
            fields: tuple[str, ...] = AnchorSamplesRecorder.fields
        else:
            parts.teacher_recorders[predictions] = dict(
                type='mmkd_plugin.RoIPredictions',
                source=models.teacher.output[0].source,
                samples=samples,
                scale=models.teacher_scale,
            )
            levels, names, fields = [(0, 0)], [''], RoISamplesRecorder.fields

        if self.mu != 1:
            parts.mix(student.loss, self.mu, f'{loss}_cls{names[0]}.soft')
        for suffix, (ours, theirs) in zip(names, levels):

            def sample(field: str, index: int = ours) -> dict[str, Any]:
                return _entry(samples, True, index, fields.index(field))

            def prediction(field: int, index: int = theirs) -> dict[str, Any]:
                return _entry(predictions, False, index, field)

            # Anchors of all levels share one factor; RoIs are counted by the losses.
            shared = dict(avg_factor=sample('avg_factor')) if 'avg_factor' in fields else {}
            if self.mu != 1:
                parts.distill_losses[f'{loss}_cls{suffix}'] = dict(
                    type='mmkd_plugin.ChenClassificationLoss',
                    soft_weight=1 - self.mu,
                    background_weight=self.background_weight,
                    temperature=self.temperature,
                    sigmoid=student.sigmoid,
                    loss_weight=self.weight,
                )
                parts.loss_forward_mappings[f'{loss}_cls{suffix}'] = dict(
                    student=sample('logits'), teacher=prediction(0), weight=sample('label_weights'), **shared
                )
            if self.regression_weight:
                parts.distill_losses[f'{loss}_reg{suffix}'] = dict(
                    type='mmkd_plugin.ChenRegressionLoss',
                    regression_weight=self.regression_weight,
                    form=self.regression,
                    margin=self.margin,
                    loss_weight=self.weight,
                )
                parts.loss_forward_mappings[f'{loss}_reg{suffix}'] = dict(
                    student=sample('boxes'),
                    teacher=prediction(1),
                    target=sample('targets'),
                    weight=sample('box_weights'),
                    **shared,
                )

    def _hint(self, parts: Parts, loss: str, models: ModelPair) -> None:
        """One hint for each level that both models have."""
        for index, level in enumerate(models.levels(self.tap)):
            name = f'{loss}_level{index}'
            student, teacher = parts.record_level(name, level, always=True, adapt=self.hint_adapt)
            if not self.hint_adapt and level.student.channels != level.teacher.channels:
                raise DistillError(
                    f'At stride {level.student.stride} the student has {level.student.channels} channels and the '
                    f'teacher {level.teacher.channels}, which hint_adapt=False leaves as they are; set '
                    'hint_adapt=True, or choose a teacher of the same width.'
                )
            parts.distill_losses[name] = dict(
                type='mmkd_plugin.ChenHintLoss',
                hint_weight=self.hint_weight,
                norm=self.hint_norm,
                reduction=self.hint_reduction,
                loss_weight=self.weight,
            )
            parts.loss_forward_mappings[name] = dict(student=student, teacher=teacher)


def _entry(recorder: str, from_student: bool, record_idx: int, data_idx: int) -> dict[str, Any]:
    """A mapping entry."""
    return dict(recorder=recorder, from_student=from_student, record_idx=record_idx, data_idx=data_idx)
