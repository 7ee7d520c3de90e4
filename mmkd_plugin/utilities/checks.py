"""Refusals that several losses share."""

from __future__ import annotations

from torch import Tensor


def require_same_shape(method: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse a student that is not adapted to its teacher.

    Args:
        method: Name for the message.
        student: Any shape.
        teacher: The same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f'{method} compares tensors of one shape, but the student gives {tuple(student.shape)} and the teacher '
            f'{tuple(teacher.shape)}; add a connector that adapts the channels and the size of the student.'
        )


def require_same_logits(method: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse class maps that do not agree in classes or size.

    Args:
        method: Name for the message.
        student: ``(N, C, H, W)``.
        teacher: The same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f'{method} compares class scores pixel by pixel, but the student gives {tuple(student.shape)} and the '
            f'teacher {tuple(teacher.shape)}; use models of the same classes and resize the logits to one size.'
        )


def require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that an option does not know.

    Args:
        option: Name for the message.
        value: What was given.
        choices: What is valid.

    Raises:
        ValueError: If the value is none of the choices.
    """
    if value not in choices:
        raise ValueError(f'{option} must be one of {", ".join(map(repr, choices))}, but it is {value!r}.')


def require_positive(option: str, value: float) -> None:
    """Refuse a number that must be positive.

    Args:
        option: Name for the message.
        value: What was given.

    Raises:
        ValueError: If the value is not positive.
    """
    if value <= 0:
        raise ValueError(f'{option} must be positive, but it is {value}.')
