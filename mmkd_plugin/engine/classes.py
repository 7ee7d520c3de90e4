"""Compare the classes that teacher and student were made for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from mmkd_plugin.errors import DistillError


def class_names(meta: dict[str, Any] | None) -> tuple[str, ...] | None:
    """Class names of a data set's or checkpoint's meta information, None where it holds none."""
    meta = meta or {}
    names = meta.get('classes', meta.get('CLASSES'))
    return tuple(names) if isinstance(names, Sequence) and not isinstance(names, str) else None


def check_classes(student: dict[str, Any] | None, teacher: dict[str, Any] | None, by_class: bool) -> bool:
    """Say so where the teacher knows other classes.

    Args:
        student: Meta information of the student's training data.
        teacher: ``meta['dataset_meta']`` of the teacher's checkpoint.
        by_class: Whether anything that depends on the classes is taken from the teacher (its heads, its logits).

    Returns:
        Whether the classes agree, as far as both are known.

    Raises:
        DistillError: If classes differ and something depends on them.
    """
    of_student, of_teacher = class_names(student), class_names(teacher)
    if of_student is None or of_teacher is None or of_student == of_teacher:
        return True
    first = next((pair for pair in zip(of_student, of_teacher) if pair[0] != pair[1]), None)
    difference = (
        f'"{first[0]}" against "{first[1]}"' if first else f'{len(of_student)} against {len(of_teacher)} classes'
    )
    if by_class:
        raise DistillError(
            f'The teacher was trained on other classes ({difference}), so its heads mean something else; use a teacher '
            'of the same classes, or a method on features alone with distill.inherit=False.'
        )
    print_log(
        f'The teacher was trained on other classes ({difference}); its features are used, its heads are not.',
        logger='current',
        level=logging.WARNING,
    )
    return False
