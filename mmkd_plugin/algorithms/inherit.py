"""The inheriting strategy: the student's neck and heads start from the teacher's weights."""

from __future__ import annotations

from collections import Counter

from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.clips import detector_path


def inherit_weights(student: nn.Module, teacher: nn.Module, mode: bool | str = True) -> str:
    """Copy every entry outside the backbone from teacher to student.

    It must run after the weight initialisation, which would undo it.

    Args:
        student: Receives the weights.
        teacher: Gives them.
        mode: True to refuse where they differ, ``'auto'`` to copy nothing there.

    Returns:
        One sentence on what was copied.

    Raises:
        DistillError: If ``mode`` is True and neck or heads differ.
    """
    target = student.state_dict()
    backbone = f'{detector_path(student)}backbone.'
    source = {key: value for key, value in teacher.state_dict().items() if not key.startswith(backbone)}
    wanted = [key for key in target if not key.startswith(backbone)]
    problem = ''
    for key in wanted:
        if key not in source:
            problem = f'the teacher has no "{key}"'
        elif source[key].shape != target[key].shape:
            problem = (
                f'"{key}" is {tuple(target[key].shape)} in the student and {tuple(source[key].shape)} in the teacher'
            )
        if problem:
            break
    if not problem and not wanted:
        problem = 'the student has nothing outside its backbone'
    if problem and mode == 'auto':
        return f'inherit: nothing copied, since neck and heads of student and teacher differ ({problem}).'
    if problem:
        raise DistillError(
            f'inherit=True needs equal necks and heads, but {problem}; set distill.inherit=False or '
            'choose such a teacher.'
        )
    student.load_state_dict({key: source[key] for key in wanted}, strict=False)
    parts = Counter(key.split('.')[0] for key in wanted)
    shown = ', '.join(f'{part} ({count})' for part, count in parts.items())
    return f'inherit: {len(wanted)} entries copied from the teacher: {shown}.'
