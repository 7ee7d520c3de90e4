"""What a detector's box heads predict, and whether those of two detectors can be compared box by box."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from mmkd_plugin.errors import DistillError

_CLOSE = 1e-3
"""Difference in pixels up to which anchors are the same."""


@dataclasses.dataclass(frozen=True)
class AnchorLevel:
    """The anchors of one level.

    Attributes:
        stride: Pixels of the image per cell.
        boxes: Anchors of the first cell, ``x1 y1 x2 y2``.
    """

    stride: float
    boxes: tuple[tuple[float, ...], ...]

    def seen_at(self, scale: float) -> AnchorLevel:
        """The same anchors in pixels of an image that is smaller by ``scale``."""
        boxes = tuple(tuple(side / scale for side in box) for box in self.boxes)
        return AnchorLevel(self.stride / scale, boxes)

    def agrees(self, other: AnchorLevel) -> bool:
        """Whether both place the same anchors."""
        return (
            self.stride == other.stride
            and len(self.boxes) == len(other.boxes)
            and all(abs(a - b) < _CLOSE for box, same in zip(self.boxes, other.boxes) for a, b in zip(box, same))
        )


@dataclasses.dataclass(frozen=True)
class BoxHead:
    """A head that classifies and regresses boxes.

    Attributes:
        path: Path of the head.
        name: Class of the head, or of the RoI head around it.
        samples: The recorder that reads what it is trained on; empty where none can.
        columns: Logits per box.
        sigmoid: Whether each passes a sigmoid instead of all a softmax.
        coder: The encoding of its boxes, in words.
        decoded: Whether its regression loss works on decoded boxes.
        loss: Name of its classification loss.
        anchors: Its anchors by level; empty for an RoI head.
    """

    path: str
    name: str
    samples: str = ''
    columns: int = 0
    sigmoid: bool = False
    coder: str = ''
    decoded: bool = False
    loss: str = ''
    anchors: tuple[AnchorLevel, ...] = ()

    def seen_at(self, scale: float) -> BoxHead:
        """The same head in pixels of an image that is smaller by ``scale``."""
        return dataclasses.replace(self, anchors=tuple(level.seen_at(scale) for level in self.anchors))


@dataclasses.dataclass(frozen=True)
class BoxHeadPair:
    """The same head of student and teacher."""

    student: BoxHead
    teacher: BoxHead

    def require_readable(self, remedy: str) -> None:
        """Refuse heads whose samples cannot be taken or evaluated.

        Args:
            remedy: What to do about it, for messages.

        Raises:
            DistillError: If a head is of a kind that is not known, or the two are of different kinds.
        """
        for role, head in (('student', self.student), ('teacher', self.teacher)):
            if not head.samples:
                raise DistillError(
                    f"The {role}'s {head.path} is a {head.name}, which assigns, samples or predicts boxes in a way of "
                    f'its own; use heads of the AnchorHead and StandardRoIHead form, or {remedy}.'
                )
        if self.student.path != self.teacher.path:
            raise DistillError(
                f"The student's {self.student.path} cannot be compared with the teacher's {self.teacher.path}; choose "
                f'a teacher of the same family, or {remedy}.'
            )

    def require_same_classes(self) -> None:
        """Refuse logits that mean different things.

        Raises:
            DistillError: If the numbers of columns differ, or one is a sigmoid and one a softmax.
        """
        of_student, of_teacher = (
            f'{head.columns} {"sigmoid" if head.sigmoid else "softmax"} columns'
            for head in (self.student, self.teacher)
        )
        if of_student != of_teacher:
            raise DistillError(
                f"The student's {self.student.path} classifies by {of_student} and the teacher's by {of_teacher}, so "
                'their logits cannot be compared; choose a teacher of the same num_classes and loss_cls.'
            )

    def require_same_boxes(self, remedy: str) -> None:
        """Refuse boxes in different encodings.

        Raises:
            DistillError: If the coders differ, or the student's targets are decoded boxes.
        """
        if self.student.decoded:
            raise DistillError(
                f"The student's {self.student.path} is trained on decoded boxes (reg_decoded_bbox=True), which are not "
                f'bounded by a distance between encoded ones; train it with reg_decoded_bbox=False, or {remedy}.'
            )
        if self.student.coder != self.teacher.coder:
            raise DistillError(
                f"The student's {self.student.path} encodes boxes by {self.student.coder} and the teacher's by "
                f'{self.teacher.coder}; choose a teacher with the same bbox_coder, or {remedy}.'
            )

    def levels(self, remedy: str) -> list[tuple[int, int]]:
        """Match the levels of two dense heads by stride.

        Returns:
            Index in the student's head and in the teacher's, from fine to coarse.

        Raises:
            DistillError: If no stride occurs in both, or anchors differ at one that does.
        """
        pairs = []
        for of_student, level in enumerate(self.student.anchors):
            for of_teacher, other in enumerate(self.teacher.anchors):
                if level.stride != other.stride:
                    continue
                if not level.agrees(other):
                    raise DistillError(
                        f'At stride {level.stride:g} the {self.student.path} of the student places other anchors '
                        f'({_sizes(level)}) than that of the teacher ({_sizes(other)}); choose a teacher with the '
                        f'same anchor_generator, or {remedy}.'
                    )
                pairs.append((of_student, of_teacher))
        if not pairs:
            strides = [[f'{level.stride:g}' for level in head.anchors] for head in (self.student, self.teacher)]
            raise DistillError(
                f'Student and teacher have no anchors of the same stride in the {self.student.path}: '
                f"{', '.join(strides[0])} and {', '.join(strides[1])} pixels of the student's image; choose a teacher "
                f'with such a level, or {remedy}.'
            )
        return pairs


def _sizes(level: AnchorLevel) -> str:
    """The anchors of a level in words."""
    sizes = [f'{x2 - x1:.4g}x{y2 - y1:.4g}' for x1, y1, x2, y2 in level.boxes]
    return f'{len(sizes)} a cell, {", ".join(sizes[:3])}{", ..." if len(sizes) > 3 else ""}'


def dense_head(model: nn.Module) -> BoxHead | None:
    """Describe a detector's RPN or its one-stage head.

    Args:
        model: The detector.

    Returns:
        The head; None where the model has none.
    """
    path = next((name for name in ('rpn_head', 'bbox_head') if isinstance(getattr(model, name, None), nn.Module)), None)
    if path is None:
        return None
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.dense_heads.anchor_head import AnchorHead

    head: Any = getattr(model, path)
    kind = type(head)
    known = (
        isinstance(head, AnchorHead)
        and kind.get_targets is AnchorHead.get_targets
        and kind.loss_by_feat in (AnchorHead.loss_by_feat, RPNHead.loss_by_feat)
        and kind.loss_by_feat_single is AnchorHead.loss_by_feat_single
        and hasattr(head.prior_generator, 'base_anchors')
        and head.bbox_coder.encode_size == 4
    )
    if not known:
        return BoxHead(path, kind.__name__)
    generator = head.prior_generator
    return BoxHead(
        path=path,
        name=kind.__name__,
        samples='AnchorSamples',
        columns=head.cls_out_channels,
        sigmoid=head.use_sigmoid_cls,
        coder=_coder(head.bbox_coder),
        decoded=head.reg_decoded_bbox,
        loss=_loss_name(path, kind.loss_by_feat is RPNHead.loss_by_feat),
        anchors=tuple(
            AnchorLevel(stride[0], tuple(map(tuple, boxes.tolist())))
            for stride, boxes in zip(generator.strides, generator.base_anchors)
        ),
    )


def roi_box_head(model: nn.Module) -> BoxHead | None:
    """Describe a detector's RoI head; arguments and result as for :func:`dense_head`."""
    roi_head: Any = getattr(model, 'roi_head', None)
    if not isinstance(roi_head, nn.Module):
        return None
    from mmdet.models.roi_heads import StandardRoIHead
    from mmdet.models.roi_heads.bbox_heads import BBoxHead

    kind: Any = type(roi_head)
    path = 'roi_head.bbox_head'
    head: Any = getattr(roi_head, 'bbox_head', None)
    known = (
        isinstance(roi_head, StandardRoIHead)
        and kind._bbox_forward is StandardRoIHead._bbox_forward
        and isinstance(head, BBoxHead)
        and type(head).loss is BBoxHead.loss
        and not head.custom_cls_channels
        and head.with_cls
        and head.with_reg
        and head.bbox_coder.encode_size == 4
    )
    if not known:
        return BoxHead(path, kind.__name__)
    return BoxHead(
        path=path,
        name=kind.__name__,
        samples='RoISamples',
        columns=head.num_classes + 1,
        sigmoid=bool(getattr(head.loss_cls, 'use_sigmoid', False)),
        coder=_coder(head.bbox_coder),
        decoded=head.reg_decoded_bbox,
        loss='loss_cls',
    )


def _loss_name(path: str, of_rpn: bool) -> str:
    """What a detector calls the classification loss of its dense head."""
    if of_rpn:
        return 'loss_rpn_cls'
    return 'rpn_loss_cls' if path == 'rpn_head' else 'loss_cls'


def _coder(coder: Any) -> str:
    """A box coder in words; equal words mean equal encodings."""
    means, stds = (tuple(float(value) for value in getattr(coder, name, ())) for name in ('means', 'stds'))
    return f'{type(coder).__name__}(means={means}, stds={stds})'
