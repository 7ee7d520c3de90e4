"""Chen et al., NIPS 2017: distillation of a detector's classes, boxes and features."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple, Union

from mmengine.logging import print_log
from torch import Tensor
from typing_extensions import Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.chen import (
    bounded_regression,
    hint_loss,
    soft_class_count,
    squared_distance,
    weighted_soft_binary_cross_entropy,
    weighted_soft_cross_entropy,
)
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Entry, Parts, level_name
from mmkd_plugin.probe.boxes import BoxHeadPair
from mmkd_plugin.probe.models import ModelPair
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.averaging import average
from mmkd_plugin.utilities.distributed import mean_over_ranks
from mmkd_plugin.utilities.settings import Factor, Positive, Share, Weight

_LABELS = {'rpn_head': 'rpn', 'bbox_head': 'dense', 'roi_head.bbox_head': 'roi'}
"""What a head is called in the names of losses."""


@MODELS.register_module()
class ChenClassificationLoss(DistillLoss):
    r"""The soft part of the paper's classification loss, :math:`\mu L_{hard} + (1 - \mu) L_{soft}`.

    The hard part is the student's own loss, which its owner weighs with mu, here ``hard_share``. Student and teacher
    must have seen the same proposals: the student's sampled anchors or RoIs.

    Args:
        hard_share: Mu, the share of the student's own classification losses; the teacher's soft ones have the rest, so
            that 1 switches classification off.
        soft_weight: Weight of the soft classification in place of what ``hard_share`` leaves it; with ``hard_share=1,
            soft_weight=0.5`` the student's own loss stays whole.
        background_weight: Weight of the background's column, or of "not this class" where each has a sigmoid; 1 is the
            paper's unweighted ablation.
        background_index: Column of the background among softmax logits; the last one in MMDetection.
        temperature: Of both softmaxes or sigmoids; the paper found 1 best.
        sigmoid: Whether each column passes a sigmoid (region proposal networks, RetinaNet) instead of all a softmax.
        min_positives: How many positives an image of a dense head counts as having at least, on average over the batch,
            where the sum over the anchors is divided by the positives; 10, about those of one object, bounds the term
            for batches with few boxes or none, and 0 divides as the head's own losses do.
        loss_weight: Factor on all terms; 0 switches the method off.
    """

    def __init__(
        self,
        hard_share: Share = 0.5,
        background_weight: Factor = 1.5,
        background_index: int = -1,
        temperature: Positive = 1.0,
        sigmoid: bool = False,
        min_positives: Factor = 10.0,
        soft_weight: Optional[Weight] = None,
        loss_weight: Factor = 1.0,
    ) -> None:
        super().__init__()
        self.weight = (1 - hard_share if soft_weight is None else soft_weight) * loss_weight
        self.background_weight = background_weight
        self.background_index = background_index
        self.temperature = temperature
        self.sigmoid = sigmoid
        self.min_positives = min_positives

    def terms(
        self,
        student: Tensor,
        teacher: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Union[Tensor, float, None] = None,
        images: Optional[Tensor] = None,
        sampled: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Logits, ``(..., C)``.
            teacher: Logits for the same proposals, ``(..., C)``; detached.
            weight: Of each proposal, ``(...)``: 0 for those that were not sampled; None for 1.
            avg_factor: What the sum is divided by; None for the sum of the weights, averaged over ranks.
            images: Number of images, averaged over ranks, ``()``; with it and ``sampled``, a tensor ``avg_factor`` gets
                its floor, see :func:`~mmkd_plugin.functional.chen.soft_class_count`.
            sampled: Sum of the weights over all levels, averaged over ranks, ``()``.

        Returns:
            A scalar under ``'soft'``.

        Raises:
            ValueError: If the logits differ in shape.
        """
        if not self.weight:
            return {}
        options = {'background_weight': self.background_weight, 'temperature': self.temperature}
        if self.sigmoid:
            losses = weighted_soft_binary_cross_entropy(student, teacher, **options)
        else:
            losses = weighted_soft_cross_entropy(student, teacher, background_index=self.background_index, **options)
        if avg_factor is None:
            avg_factor = mean_over_ranks(losses.new_full((), losses.numel()) if weight is None else weight.sum())
        if isinstance(avg_factor, Tensor) and images is not None and sampled is not None:
            avg_factor = soft_class_count(avg_factor, images, sampled, min_positives=self.min_positives)
        return {'soft': self.weight * average(losses, weight, avg_factor)}


@MODELS.register_module()
class ChenRegressionLoss(DistillLoss):
    r"""The teacher's part of the paper's regression loss, :math:`SmoothL1 + \nu L_b`.

    The smooth L1 part is the student's own loss. Only proposals with a regression target may have a weight.

    Args:
        form: ``'bounded'``: the squared distance to the truth where it is not smaller than the teacher's; ``'l2'``: the
            squared distance to the teacher's boxes, the paper's ablation.
        margin: How much better than the teacher a box must be to be left alone, in squared encoded distance; the paper
            gives no value.
        loss_weight: Nu; 0 switches regression off.
    """

    def __init__(
        self, form: Literal['bounded', 'l2'] = 'bounded', margin: float = 0.0, loss_weight: Factor = 0.5
    ) -> None:
        super().__init__()
        self.weight = loss_weight
        self.form = form
        self.margin = margin

    def terms(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Union[Tensor, float, None] = None,
    ) -> Dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Regressed boxes, ``(..., 4)``.
            teacher: The teacher's for the same proposals, ``(..., 4)``; detached.
            target: The truth in the same encoding, ``(..., 4)``.
            weight: Of each proposal, ``(...)``: 1 for positives, 0 for others; None for 1.
            avg_factor: What the sum is divided by, as in the student's own regression loss; None for the number of
                proposals, positive or not, averaged over ranks.

        Returns:
            A scalar under the name of the form.

        Raises:
            ValueError: If the shapes differ.
        """
        if not self.weight:
            return {}
        if self.form == 'bounded':
            losses = bounded_regression(student, teacher, target, margin=self.margin)
        else:
            losses = squared_distance(student, teacher)
        if avg_factor is None:
            avg_factor = mean_over_ranks(losses.new_full((), losses.numel()))
        return {self.form: self.weight * average(losses, weight, avg_factor)}


@MODELS.register_module()
class ChenHintLoss(DistillLoss):
    """The paper's hint loss; see :func:`~mmkd_plugin.functional.chen.hint_loss` for the formula.

    The adaptation of the student, a 1x1 convolution even where the channels agree, is a connector.

    Args:
        norm: ``'l2'`` (squared) or ``'l1'``.
        reduction: ``'mean'`` over elements, ``'batchmean'`` (sum of an image, averaged over images) or ``'sum'``.
        loss_weight: Gamma; 0 switches the hint off.
    """

    def __init__(
        self,
        norm: Literal['l2', 'l1'] = 'l2',
        reduction: Literal['mean', 'batchmean', 'sum'] = 'mean',
        loss_weight: Factor = 0.5,
    ) -> None:
        super().__init__()
        self.weight = loss_weight
        self.norm = norm
        self.reduction = reduction

    def terms(self, student: Tensor, teacher: Tensor) -> Dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Adapted student feature, ``(N, ...)``.
            teacher: Teacher feature, ``(N, ...)``; detached.

        Returns:
            A scalar under ``'hint'``.

        Raises:
            ValueError: If the features differ in shape.
        """
        if not self.weight:
            return {}
        return {'hint': self.weight * hint_loss(student, teacher, norm=self.norm, reduction=self.reduction)}


@METHODS.register_module()
class Chen(Method):
    """Classes, boxes and features of a detector, Chen et al., NIPS 2017.

    A detector's heads are compared on the anchors and RoIs that the student itself was trained on in the step: the RPN
    and the RoI head of a two-stage detector, the head of a one-stage one.

    Attributes:
        adapt: The hint's 1x1 convolution at the student: ``'always'``, as in the paper, ``'auto'`` where widths differ,
            or ``'never'``.
        tap: The hint: ``'output'`` takes what the neck returns, ``'pre_norm'`` each level's last convolution,
            ``'backbone'`` what the backbone returns, as in the paper; or the path of a module, ``'backbone.layer3'``.
        heads: Which heads are compared: ``'all'``, the ``'dense'`` one alone or the ``'roi'`` head alone.
    """

    task = 'detection'
    losses = {'': ChenClassificationLoss, 'regression': ChenRegressionLoss, 'hint': ChenHintLoss}
    given = ('background_index', 'sigmoid')
    renamed = {
        'mu': 'hard_share',
        'regression': 'regression_form',
        'margin': 'regression_margin',
        'hint_adapt': "adapt='always', 'auto' or 'never'",
    }

    adapt: Literal['always', 'auto', 'never'] = 'always'
    tap: str = 'output'
    heads: Literal['all', 'dense', 'roi'] = 'all'

    @property
    def softens(self) -> bool:
        """Whether classes are compared."""
        return bool(1 - self.hard_share if self.soft_weight is None else self.soft_weight)

    def _no_heads(self, where: str) -> str:
        """What leaves the heads alone."""
        classes = f'{where}.hard_share=1' if self.soft_weight is None else f'{where}.soft_weight=0'
        return f'set {classes} and {where}.regression_weight=0'

    def expand(self, name: str, models: ModelPair) -> Parts:
        """Losses on every head and, for the hint, on every level."""
        parts = Parts()
        if self.softens or self.regression_weight:
            # The boxes of an RoI are those of its class.
            parts.same_classes = True
            where = f'distill.methods.{name}'
            remedy = self._no_heads(where)
            for pair in models.box_heads(self.heads, remedy=remedy):
                self._compare(parts, f'loss_{name}_{_LABELS.get(pair.student.path, "roi")}', pair, models, where)
        if self.hint_weight:
            self._hint(parts, f'loss_{name}_hint', models)
        return parts

    def _compare(self, parts: Parts, loss: str, pair: BoxHeadPair, models: ModelPair, where: str) -> None:
        """Classification and regression of one head."""
        remedy = self._no_heads(where)
        if models.student.roi_head is not None and models.student.dense_head is not None:
            remedy = f"set {where}.heads='{'roi' if pair.student.path == 'rpn_head' else 'dense'}'"
        pair.require_readable(remedy)
        if self.softens:
            pair.require_same_classes()
        if self.regression_weight:
            pair.require_same_boxes(f'set {where}.regression_weight=0')
        dense = bool(pair.student.anchors)
        levels = _matched(pair, remedy) if dense else [(0, 0)]
        samples, predictions = _record_heads(parts, pair, models, levels)
        if self.softens and self.hard_share != 1:
            first = level_name(f'{loss}_cls', 0) if dense else f'{loss}_cls'
            parts.mix(pair.student.loss, self.hard_share, f'{first}.soft')
        for index, (at_student, at_teacher) in enumerate(levels):
            sample = dict(recorder=samples, from_student=True, record_idx=at_student)
            prediction = dict(recorder=predictions, from_student=False, record_idx=at_teacher)
            # Anchors of all levels share one factor; RoIs are counted by the losses.
            counts = ('avg_factor', 'images', 'sampled') if dense else ()
            shared = {count: dict(sample, data_idx=count) for count in counts}
            if self.softens:
                parts.add_loss(
                    level_name(f'{loss}_cls', index) if dense else f'{loss}_cls',
                    self.loss_config(sigmoid=pair.student.sigmoid),
                    student=dict(sample, data_idx='logits'),
                    teacher=dict(prediction, data_idx='logits'),
                    weight=dict(sample, data_idx='label_weights'),
                    **shared,
                )
            if self.regression_weight:
                parts.add_loss(
                    level_name(f'{loss}_reg', index) if dense else f'{loss}_reg',
                    self.loss_config('regression'),
                    student=dict(sample, data_idx='boxes'),
                    teacher=dict(prediction, data_idx='boxes'),
                    target=dict(sample, data_idx='targets'),
                    weight=dict(sample, data_idx='box_weights'),
                    **{count: shared[count] for count in counts[:1]},
                )

    def _hint(self, parts: Parts, loss: str, models: ModelPair) -> None:
        """One hint for each level that both models have."""
        for index, level in enumerate(models.levels(self.tap)):
            if self.adapt == 'never' and level.student.channels != level.teacher.channels:
                raise DistillError(
                    f'At stride {level.student.stride} the student has {level.student.channels} channels and the '
                    f"teacher {level.teacher.channels}, which adapt='never' leaves as they are; set adapt='auto', or "
                    'choose a teacher of the same width.'
                )
            name = level_name(loss, index)
            student, teacher = parts.record_level(name, level, self.adapt)
            parts.add_loss(name, self.loss_config('hint'), student=student, teacher=teacher)


def _record_heads(parts: Parts, pair: BoxHeadPair, models: ModelPair, levels: List[Tuple[int, int]]) -> Tuple[str, str]:
    """Add the recorders of a head: what the student's was trained on, and what the teacher's says about that.

    Args:
        parts: What they are added to.
        pair: The head of both models.
        models: Both models.
        levels: The levels of a dense head that are compared, as :func:`_matched` gives them.

    Returns:
        The names of the recorders.
    """
    student, teacher = pair.student, pair.teacher
    samples = f'{student.path.replace(".", "_")}_samples'
    predictions = f'{teacher.path.replace(".", "_")}_predictions'
    parts.student_recorders[samples] = dict(type=f'mmkd_plugin.{student.samples}', source=student.path)
    of_student = {at_teacher: at_student for at_student, at_teacher in levels}
    same = [of_student.get(index) for index in range(len(teacher.anchors))]
    kind: Entry = dict(type='mmkd_plugin.AnchorPredictions', head=teacher.path, samples=samples, levels=same)
    if not student.anchors:
        kind = dict(type='mmkd_plugin.RoIPredictions', samples=samples, scale=models.teacher_scale)
    parts.teacher_recorders[predictions] = dict(kind, source=models.teacher.output[0].source)
    return samples, predictions


def _matched(pair: BoxHeadPair, remedy: str) -> List[Tuple[int, int]]:
    """The levels on which both heads place anchors; the log names those of the student that are left out."""
    levels = pair.levels(remedy)
    if len(levels) < len(pair.student.anchors):
        kept = dict(levels)
        left = [f'{level.stride:g}' for index, level in enumerate(pair.student.anchors) if index not in kept]
        print_log(f'The teacher has no anchors at the stride {", ".join(left)}; these are not distilled.', 'current')
    return levels
