"""Find a model's levels, channels and strides by running it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.probe.boxes import BoxHead, BoxHeadPair, dense_head, roi_box_head
from mmkd_plugin.probe.maps import HeadPair, HeadTaps
from mmkd_plugin.probe.observe import Observation, observe
from mmkd_plugin.probe.taps import LevelPair, Tap, match_strides
from mmkd_plugin.recorders.priors import anchor_strides

LEVELS = ('output', 'pre_norm', 'backbone')
"""What is known of a model as a whole: the levels of its neck, before their norm, and those of its backbone."""


@dataclasses.dataclass(frozen=True)
class ModelTaps:
    """What can be recorded in one model.

    Attributes:
        name: Class of the model.
        output: The levels as the neck returns them.
        pre_norm: The levels before norm and activation.
        backbone: The levels as the backbone returns them.
        modules: Every module that returned one feature map, by path: a tap for each call.
        decode_head: Taps of a segmentor's decode head, None where it has none that returns a class map.
        auxiliary_heads: Those of its auxiliary heads.
        anchor_strides: Strides of the levels on which the head places anchors; empty where it places none.
        dense_head: The RPN or the one-stage head of a detector, None where it has none.
        roi_head: The RoI head of a detector, None where it has none.
        task: ``'segmentation'``, ``'detection'``, or empty for a model of another kind.
        image_size: Height and width to which its preprocessor pads the images of a training, None where that is open.
    """

    name: str
    output: tuple[Tap, ...]
    pre_norm: tuple[Tap, ...]
    backbone: tuple[Tap, ...] = ()
    modules: dict[str, tuple[Tap, ...]] = dataclasses.field(default_factory=dict)
    decode_head: HeadTaps | None = None
    auxiliary_heads: tuple[HeadTaps, ...] = ()
    anchor_strides: tuple[int, ...] = ()
    dense_head: BoxHead | None = None
    roi_head: BoxHead | None = None
    task: str = ''
    image_size: tuple[int, int] | None = None

    def seen_at(self, scale: float) -> ModelTaps:
        """The same model on images that are larger by ``scale``, in pixels of the smaller ones."""
        return dataclasses.replace(
            self,
            output=tuple(tap.seen_at(scale) for tap in self.output),
            pre_norm=tuple(tap.seen_at(scale) for tap in self.pre_norm),
            backbone=tuple(tap.seen_at(scale) for tap in self.backbone),
            modules={path: tuple(tap.seen_at(scale) for tap in taps) for path, taps in self.modules.items()},
            decode_head=None if self.decode_head is None else self.decode_head.seen_at(scale),
            auxiliary_heads=tuple(head.seen_at(scale) for head in self.auxiliary_heads),
            anchor_strides=tuple(int(stride / scale) for stride in self.anchor_strides),
            dense_head=None if self.dense_head is None else self.dense_head.seen_at(scale),
        )

    def anchor_level(self, stride: int) -> int | None:
        """Which of the head's levels places anchors on the neck's level of a stride; None where none does.

        A head with as many levels as the neck reads them in their order, whatever the strides are called.
        """
        level = next((tap for tap in self.output if tap.stride == stride), None)
        if level is not None and len(self.anchor_strides) == len(self.output):
            return level.data_idx or 0
        return self.anchor_strides.index(stride) if stride in self.anchor_strides else None

    def at(self, path: str) -> Tap:
        """The output of the first call of a module that the user names; raises as :meth:`calls` does."""
        return self.calls(path)[0]

    def calls(self, path: str) -> tuple[Tap, ...]:
        """The outputs of a module that the user names; a dense head's module is called once per level.

        Raises:
            DistillError: If no such module returned a feature map, with the nearest paths that did.
        """
        if path not in self.modules and any(tap.source == path for tap in self.output):
            raise DistillError(
                f'The tap "{path}" is no module of {self.name} that returns a feature map (N, C, H, W): it returns '
                'several levels; write "output" for all of them where the method takes it, or name a module of one.'
            )
        if path not in self.modules:
            raise DistillError(
                f'The tap "{path}" is no module of {self.name} that returns a feature map (N, C, H, W): '
                + nearest(path, self.modules)
            )
        return self.modules[path]


@dataclasses.dataclass(frozen=True)
class ModelPair:
    """Student and teacher as a method sees them.

    Attributes:
        student: The student.
        teacher: The teacher; strides and anchors in pixels of the student's image.
        teacher_scale: Size of the teacher's image in the student's.
    """

    student: ModelTaps
    teacher: ModelTaps
    teacher_scale: float = 1.0

    def levels(self, tap: str) -> list[LevelPair]:
        """Match the levels of both models by stride.

        Args:
            tap: ``'output'``, ``'pre_norm'`` or ``'backbone'``, or the path of a module.

        Returns:
            The pairs from fine to coarse.

        Raises:
            DistillError: If no stride occurs in both, or a path is that of no module with a feature map.
        """
        if tap not in LEVELS:
            return self.match(self.student.calls(tap), self.teacher.calls(tap))
        return self.match(getattr(self.student, tap), getattr(self.teacher, tap))

    def match(self, students: Sequence[Tap], teachers: Sequence[Tap]) -> list[LevelPair]:
        """Match taps of both models by stride; arguments, result and error as in :meth:`levels`.

        Where no stride is common, each student level meets the nearest one of the teacher within a factor of two; what
        compares the two then resizes the teacher's map.
        """
        pairs, left = match_strides(students, teachers)
        unequal = [pair for pair in pairs if pair.student.stride != pair.teacher.stride]
        if unequal:
            print_log(
                "Student and teacher have no level of the same stride; nearest ones are compared, the teacher's "
                f'resized: {", ".join(f"{pair.student.stride:g} with {pair.teacher.stride:g}" for pair in unequal)}.',
                'current',
            )
        if not pairs:
            raise DistillError(
                f'Student and teacher have no levels whose strides lie within a factor of two: '
                f'{[level.stride for level in students]} in {self.student.name}, '
                f'{sorted({level.stride for level in teachers})} in {self.teacher.name}; choose a teacher with such a '
                'level.'
            )
        if left:
            print_log(
                f'Student levels of stride {[level.stride for level in left]} have no teacher level of that stride and '
                'are not distilled.',
                'current',
            )
        return pairs

    def box_heads(self, heads: str = 'all', remedy: str = 'leave the method out') -> list[BoxHeadPair]:
        """The box heads of both detectors.

        Args:
            heads: ``'all'``, ``'dense'`` or ``'roi'``.
            remedy: What to do other than to choose another model, for messages.

        Returns:
            The pairs that the student has: the dense head, then the RoI head.

        Raises:
            DistillError: If the student has none, or the teacher lacks one of them.
        """
        kinds = {'dense': 'dense_head', 'roi': 'roi_head'}
        wanted = list(kinds.values()) if heads == 'all' else [kinds[heads]]
        pairs = []
        for kind in wanted:
            student, teacher = getattr(self.student, kind), getattr(self.teacher, kind)
            if student is None:
                continue
            if teacher is None:
                raise DistillError(
                    f'The student, {self.student.name}, has a {student.path}, which the teacher, {self.teacher.name}, '
                    f'lacks; choose a teacher of the same family, or {remedy}.'
                )
            pairs.append(BoxHeadPair(student, teacher))
        if not pairs:
            raise DistillError(
                f'The student, {self.student.name}, has no {" or ".join(wanted)} whose boxes could be compared; choose '
                f'a detector that has, or {remedy}.'
            )
        return pairs

    def decode_heads(self) -> HeadPair:
        """The decode heads of both models.

        Raises:
            DistillError: If a model has none that returns one class map.
        """
        for role, model in (('student', self.student), ('teacher', self.teacher)):
            if model.decode_head is None:
                raise DistillError(
                    f'The {role}, {model.name}, has no decode_head with a module that returns its class map; the '
                    'method needs a segmentor of the encoder-decoder form.'
                )
        assert self.student.decode_head is not None and self.teacher.decode_head is not None
        return HeadPair(self.student.decode_head, self.teacher.decode_head)


def probe(model: Any, role: str) -> ModelTaps:
    """Run a model once on a small image, or on a larger one where it must, and list its levels and heads.

    The levels are what the neck returns, or the backbone where there is no neck. A level that a convolution returned
    has its ``pre_norm`` tap there, inside a ``ConvModule`` before norm and activation. Where some levels come from a
    convolution, one that another module made or that the neck passes through is taken as the neck returns it, and one
    that a function made (by max-pooling, say) carries nothing of its own and has no such tap.

    Args:
        model: The detector or segmentor; its state is left as it was.
        role: ``'student'`` or ``'teacher'``, for messages.

    Returns:
        The levels from fine to coarse.

    Raises:
        DistillError: If the model has neither feature levels nor a decode head.
    """
    return taps_of(model, observe(model, role))


def taps_of(model: Any, seen: Observation) -> ModelTaps:
    """The levels and heads of a model that was run; see :func:`probe`."""
    output = sorted((level.tap for level in seen.levels), key=lambda tap: tap.stride)
    return ModelTaps(
        name=type(model).__name__,
        output=tuple(output),
        pre_norm=tuple(_pre_norm(seen) or output),
        backbone=tuple(sorted((level.tap for level in seen.backbone), key=lambda tap: tap.stride)),
        modules=seen.watch.taps(),
        decode_head=seen.decode_head,
        auxiliary_heads=seen.auxiliary_heads,
        anchor_strides=anchor_strides(model),
        dense_head=dense_head(model),
        roi_head=roi_box_head(model),
        task=task_of(model),
        image_size=_padded_size(model),
    )


def _padded_size(model: Any) -> tuple[int, int] | None:
    """Height and width to which a model's preprocessor pads images."""
    size = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    return (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) and len(size) == 2 else None


def _pre_norm(seen: Observation) -> list[Tap]:
    """The levels before norm and activation, from fine to coarse; none where no convolution made any."""
    watch, taps, convolutions = seen.watch, [], 0
    for level in seen.levels:
        origins = watch.origins_of(level.feature)
        inside = [origin for origin in origins if origin[0].startswith(f'{seen.trunk}.')]
        convolution = _convolution_of(inside, watch.modules)
        if convolution is not None:
            path, call = convolution
            taps.append(watch.tap(path, watch.results[path][call], call))
            convolutions += 1
        elif origins:
            taps.append(level.tap)
    # Levels of the same stride stay in the order of the trunk.
    return sorted(taps, key=lambda tap: tap.stride) if convolutions else []


def _convolution_of(origins: list[tuple[str, int]], modules: dict[str, nn.Module]) -> tuple[str, int] | None:
    """Path and call of the convolution among the modules that returned a level, or inside one of them.

    None where a function, or a module that is no convolution block, made the level.
    """
    for path, index in origins:
        while isinstance(getattr(modules[path], 'conv', None), nn.Module):
            path = f'{path}.conv'
        if isinstance(modules[path], nn.Conv2d):
            return path, index
    return None
