"""The layers of a student and its teacher side by side, and what of both methods compare."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.probe.listing import Known, Layer, ModelLayers
from mmkd_plugin.probe.taps import Tap, match_strides


@dataclasses.dataclass(frozen=True)
class KnownRow:
    """Something that methods know by name, in both models.

    Attributes:
        role: Its name; levels that both models have are numbered from fine to coarse, as their losses are.
        student: In the student, None where it has none.
        teacher: In the teacher, None where it has none or there is no teacher.
    """

    role: str
    student: Known | None
    teacher: Known | None


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """A path with its layer in both models.

    Attributes:
        path: The path.
        student: The student's layer, None where it has none of that path.
        teacher: The teacher's, likewise.
        student_roles: What the student's layer is known as.
        teacher_roles: What the teacher's is known as.
    """

    path: str
    student: Layer | None
    teacher: Layer | None
    student_roles: tuple[str, ...] = ()
    teacher_roles: tuple[str, ...] = ()


def known_rows(student: ModelLayers, teacher: ModelLayers | None) -> list[KnownRow]:
    """Pair what methods know by name: levels by stride, as methods do, the rest by its name.

    Args:
        student: The student.
        teacher: The teacher; None for a model alone.

    Returns:
        Levels, then heads.
    """
    models = [student] if teacher is None else [student, teacher]
    kinds = [[model.output for model in models]]
    # Where no convolution returns a level, both names mean the same.
    if any(model.has_pre_norm for model in models):
        kinds.append([model.pre_norm for model in models])
    rows = [row for kind in kinds for row in (_alone(*kind) if teacher is None else _levels(*kind))]
    return rows + _heads(student.heads, () if teacher is None else teacher.heads)


def layer_rows(student: ModelLayers, teacher: ModelLayers | None, known: Sequence[KnownRow]) -> list[LayerRow]:
    """Join the layers of both models by path.

    Args:
        student: The student.
        teacher: The teacher; None for a model alone.
        known: What :func:`known_rows` gives.

    Returns:
        A row for each path, in the order in which the student's layers ran; what the teacher alone has comes behind its
        predecessor there.
    """
    from_student, from_teacher = student.layers, {} if teacher is None else teacher.layers
    return [
        LayerRow(
            path=path,
            student=from_student.get(path),
            teacher=from_teacher.get(path),
            student_roles=tuple(row.role for row in known if row.student is not None and row.student.path == path),
            teacher_roles=tuple(row.role for row in known if row.teacher is not None and row.teacher.path == path),
        )
        for path in _merged(list(from_student), list(from_teacher))
    ]


def outermost(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Leave out the layers within another layer, such as those of a residual block, but for those with a name.

    What a part of the model (its backbone, neck or head) holds directly stays.
    """
    paths = {row.path for row in rows}

    def nested(path: str) -> bool:
        parts = path.split('.')
        return any('.'.join(parts[:depth]) in paths for depth in range(2, len(parts)))

    return [row for row in rows if row.student_roles or row.teacher_roles or not nested(row.path)]


def matching(rows: Sequence[LayerRow], pattern: str, modules: Sequence[str] = ()) -> list[LayerRow]:
    """The rows whose path matches a pattern.

    Args:
        rows: All rows.
        pattern: With ``*``, ``?`` or ``[...]`` as for files, for the whole path; without, any part of the path.
        modules: Paths of all modules, to say of a match that it returns no feature map.

    Returns:
        The rows that match.

    Raises:
        DistillError: If none does, with the nearest names.
    """
    glob = any(sign in pattern for sign in '*?[')

    def matches(path: str) -> bool:
        return fnmatchcase(path, pattern) if glob else pattern in path

    found = [row for row in rows if matches(row.path)]
    if not found:
        others = next((path for path in modules if matches(path)), None)
        if others is not None:
            raise DistillError(
                f'"{pattern}" matches modules such as "{others}", but none that returns a feature map (N, C, H, W) and '
                'can be tapped; leave --match out to see those that can.'
            )
        parts = {part for row in rows for part in row.path.split('.') if not part.isdigit()}
        close = nearest(pattern, parts | {row.path for row in rows})
        raise DistillError(f'No module that returns a feature map (N, C, H, W) matches "{pattern}": {close}')
    return found


def _levels(from_student: Sequence[Known], from_teacher: Sequence[Known]) -> list[KnownRow]:
    """Levels paired by stride; those that only one model has come last."""
    of_student, of_teacher = _by_tap(from_student), _by_tap(from_teacher)
    pairs, _ = match_strides(list(of_student), list(of_teacher))
    rows = [
        KnownRow(f'{of_student[pair.student].name} {index}', of_student.pop(pair.student), of_teacher.pop(pair.teacher))
        for index, pair in enumerate(pairs)
    ]
    rows += [KnownRow(f'{known.name} (unpaired)', known, None) for known in of_student.values()]
    return rows + [KnownRow(f'{known.name} (unpaired)', None, known) for known in of_teacher.values()]


def _alone(levels: Sequence[Known]) -> list[KnownRow]:
    """Levels of a model without a teacher."""
    return [KnownRow(f'{known.name} {index}', known, None) for index, known in enumerate(levels)]


def _by_tap(levels: Sequence[Known]) -> dict[Tap, Known]:
    return {known.tap: known for known in levels if known.tap is not None}


def _heads(from_student: Sequence[Known], from_teacher: Sequence[Known]) -> list[KnownRow]:
    """What is known of the heads, paired by name and, of several of a name, in their order."""
    students, teachers = _numbered(from_student), _numbered(from_teacher)
    return [KnownRow(role, students.get(role), teachers.get(role)) for role in _merged(list(students), list(teachers))]


def _numbered(heads: Sequence[Known]) -> dict[str, Known]:
    """By name; several of a name are numbered from 0."""
    total = Counter(known.name for known in heads)
    seen: Counter[str] = Counter()
    found = {}
    for known in heads:
        found[f'{known.name} {seen[known.name]}' if total[known.name] > 1 else known.name] = known
        seen[known.name] += 1
    return found


def _merged(from_student: list[str], from_teacher: list[str]) -> list[str]:
    """Both lists in one: what only the second has stands behind its predecessor there."""
    merged, place = list(from_student), 0
    for name in from_teacher:
        if name in merged:
            place = merged.index(name) + 1
        else:
            merged.insert(place, name)
            place += 1
    return merged
