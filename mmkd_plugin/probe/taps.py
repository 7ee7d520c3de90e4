"""Places to take tensors from, as the probe finds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place to take a feature from.

    Attributes:
        source: Path of the module whose output it is.
        channels: Channels of the feature.
        stride: Pixels of the image per cell.
        record_idx: Which call of the module in one forward pass.
        data_idx: Which element of the output, where it is a tuple.
        nonnegative: Whether no value was below zero, as behind a ReLU.
        direct: Whether the model may run the module past its hooks, by calling ``forward`` itself.
    """

    source: str
    channels: int
    stride: int
    record_idx: int = 0
    data_idx: int | None = None
    nonnegative: bool = False
    direct: bool = False

    def seen_at(self, scale: float) -> Tap:
        """The same tap in pixels of an image that is smaller by ``scale``; stride 0 where a cell is less than one."""
        return dataclasses.replace(self, stride=int(self.stride / scale))


@dataclasses.dataclass(frozen=True)
class LevelPair:
    """The taps of student and teacher at one stride."""

    student: Tap
    teacher: Tap


_TWO = 2.2
"""A factor of two between strides that are measured: without padding AlexNet's 16 is 17, and half of that is 8."""


def match_strides(students: Sequence[Tap], teachers: Sequence[Tap]) -> tuple[list[LevelPair], list[Tap]]:
    """Pair each student tap with the teacher's of the same stride or, where none is common, the nearest within two.

    Args:
        students: The student's taps.
        teachers: The teacher's, in pixels of the student's image.

    Returns:
        The pairs in the order of the student's taps, and those of its taps that found none.
    """
    pairs, left = _match(students, teachers, 1)
    return (pairs, left) if pairs else _match(students, teachers, _TWO)


def _match(students: Sequence[Tap], teachers: Sequence[Tap], ratio: float) -> tuple[list[LevelPair], list[Tap]]:
    """Pair each student tap with the nearest free teacher tap within a ratio of strides."""
    free, pairs, left = [tap for tap in teachers if tap.stride], [], []
    for level in students:
        apart = [max(level.stride, other.stride) / min(level.stride, other.stride) for other in free]
        if apart and min(apart) <= ratio:
            pairs.append(LevelPair(level, free.pop(apart.index(min(apart)))))
        else:
            left.append(level)
    return pairs, left
