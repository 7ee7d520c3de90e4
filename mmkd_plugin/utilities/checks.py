"""Refusals that several losses share."""

from __future__ import annotations

from torch import Tensor

from mmkd_plugin.errors import DistillError


def require_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse a student that is not adapted to its teacher.

    Args:
        student: Any shape.
        teacher: The same shape.

    Raises:
        DistillError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise DistillError(
            f'Student and teacher are compared element by element, but the student gives {tuple(student.shape)} and '
            f'the teacher {tuple(teacher.shape)}; add a connector that adapts the channels and the size of the student.'
        )


def require_same_logits(student: Tensor, teacher: Tensor) -> None:
    """Refuse class maps that do not agree in classes or size.

    Args:
        student: ``(N, C, H, W)``.
        teacher: The same shape.

    Raises:
        DistillError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise DistillError(
            f'Class scores are compared pixel by pixel, but the student gives {tuple(student.shape)} and the teacher '
            f'{tuple(teacher.shape)}; use models of the same classes and resize the logits to one size.'
        )


def require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that an option does not know.

    Args:
        option: Name for the message.
        value: What was given.
        choices: What is valid.

    Raises:
        DistillError: If the value is none of the choices.
    """
    if value not in choices:
        raise DistillError(f'{option} must be one of {", ".join(map(repr, choices))}, but it is {value!r}.')
