"""The inheriting strategy: the student's neck and heads start from the teacher's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.clips import detector_path


def inherit_weights(student: nn.Module, teacher: nn.Module, mode: bool | str = True) -> str:
    """Copy every entry outside the backbone from teacher to student.

    It must run after the weight initialisation, which would undo it.

    Args:
        student: Receives the weights.
        teacher: Gives them.
        mode: True to refuse where they differ, ``'auto'`` to copy nothing there, ``'matching'`` to copy what agrees in
            name and shape.

    Returns:
        One sentence on what was copied, and what was not.

    Raises:
        DistillError: If ``mode`` is True and neck or heads differ, or if it is ``'matching'`` and nothing agrees.
    """
    target = student.state_dict()
    backbone = f'{detector_path(student)}backbone.'
    source = {key: value for key, value in teacher.state_dict().items() if not key.startswith(backbone)}
    wanted = [key for key in target if not key.startswith(backbone)]
    kept = [key for key in wanted if key in source and source[key].shape == target[key].shape]
    left = [key for key in wanted if key not in kept]
    problem = '' if kept else 'the student has nothing outside its backbone'
    if left and left[0] not in source:
        problem = f'the teacher has no "{left[0]}"'
    elif left:
        shapes = [tuple(entries[left[0]].shape) for entries in (target, source)]
        problem = f'"{left[0]}" is {shapes[0]} in the student and {shapes[1]} in the teacher'
    if problem and mode == 'auto':
        return f'inherit: nothing copied, since neck and heads of student and teacher differ ({problem}).'
    if problem and not (kept and mode == 'matching'):
        needs = 'something in common' if mode == 'matching' else 'equal necks and heads'
        raise DistillError(
            f'inherit={mode!r} needs {needs}, but {problem}; set distill.inherit=False or choose such a teacher.'
        )
    student.load_state_dict({key: source[key] for key in kept}, strict=False)
    own = f"; {len(left)} are the student's own: {_by_part(left)}, {', '.join(left[:3])} among them" if left else ''
    return f'inherit: {len(kept)} entries copied from the teacher: {_by_part(kept)}{own}.'


def _by_part(keys: Sequence[str]) -> str:
    """How many entries each part of the model has."""
    counts = Counter(key.split('.')[0] for key in keys)
    return ', '.join(f'{part} ({count})' for part, count in counts.items())
