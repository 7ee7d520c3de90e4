"""The layers of student and teacher as tables for the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mmkd_plugin.probe.comparison import KnownRow, LayerRow, known_rows, layer_rows, matching, outermost
from mmkd_plugin.probe.listing import Known, Layer, ModelLayers
from mmkd_plugin.study.layers import ConfigLayers

_NOTHING = '-'


def print_layers(console: Console, found: ConfigLayers, pattern: str | None = None, everything: bool = False) -> None:
    """Print what can be tapped in the models of a config.

    Args:
        console: Where to.
        found: Their layers.
        pattern: List the layers whose path matches alone; see :func:`mmkd_plugin.probe.comparison.matching`.
        everything: Whether to list the layers within others too.

    Raises:
        DistillError: If no layer matches.
    """
    known = known_rows(found.student, found.teacher)
    rows = layer_rows(found.student, found.teacher, known)
    alone = found.teacher is None
    if pattern:
        modules = [*found.student.modules, *(found.teacher.modules if found.teacher is not None else ())]
        shown = matching(rows, pattern, modules)
    else:
        shown = rows if everything else outermost(rows)
    console.print(heading(found), markup=False)
    if not pattern:
        console.print(f'\n{known_heading(known)}\n', markup=False)
        console.print(known_table(known, alone))
    console.print('\nModules that return a feature map; each path can be a tap.\n')
    console.print(layer_table(shown, alone))
    if not pattern and len(shown) < len(rows):
        console.print(
            f'{len(rows) - len(shown)} modules within these are not shown; --all shows them, and --match PATTERN those '
            'of a path.'
        )


def heading(found: ConfigLayers) -> str:
    """What the tables are about: the models, and the images that they were run on."""
    student, teacher = found.student, found.teacher
    height, width = student.image
    size = f'an image of {width} x {height} pixels'
    if teacher is None:
        return f'{_model(student)}, run on {size}.'
    name = f' "{found.teacher_name}"' if found.teacher_name else ''
    lines = [f'student: {_model(student)}', f'teacher{name}: {_model(teacher)}']
    if student.image == teacher.image:
        lines.append(f'Both were run on {size}.')
    else:
        height, width = teacher.image
        lines.append(f'The student was run on {size}, the teacher on one of {width} x {height}.')
    if found.teacher_scale != 1:
        lines.append(
            f'In training the teacher sees images {found.teacher_scale:g} times as large; its strides are in pixels of '
            "the student's image."
        )
    return '\n'.join(lines)


def known_heading(rows: Sequence[KnownRow]) -> str:
    """What the table of :func:`known_table` is for."""
    both = any(row.role.startswith('pre_norm') for row in rows)
    pre_norm = 'those before norm and activation' if both else 'the same here'
    return f"What methods know by name: tap='output' takes the levels, tap='pre_norm' {pre_norm}."


def known_table(rows: Sequence[KnownRow], alone: bool = False) -> Table:
    """What methods know by name.

    Args:
        rows: As :func:`mmkd_plugin.probe.comparison.known_rows` gives them.
        alone: Whether there is no teacher.
    """
    table = _table('known as', 'returned by', *_sides('CxHxW', 'stride', alone=alone))
    if not alone:
        table.add_column('', overflow='fold')
    for row in rows:
        sides = [row.student] if alone else [row.student, row.teacher]
        cells = [cell for side in sides for cell in _known(side)]
        table.add_row(row.role, _one(sides, _maker), *cells, *([] if alone else [_remark(row)]))
    return table


def layer_table(rows: Sequence[LayerRow], alone: bool = False) -> Table:
    """The layers.

    Args:
        rows: As :func:`mmkd_plugin.probe.comparison.layer_rows` gives them.
        alone: Whether there is no teacher.
    """
    table = _table('path', 'class', *_sides('CxHxW', 'stride', 'params', alone=alone))
    table.add_column('known as', overflow='fold')
    for row in rows:
        sides = [row.student] if alone else [row.student, row.teacher]
        cells = [cell for side in sides for cell in _layer(side)]
        table.add_row(row.path, _one(sides, lambda layer: layer.kind), *cells, _roles(row))
    return table


def human(count: int) -> str:
    """A number of parameters for a person: three digits and K or M."""
    for size, letter in ((10**9, 'G'), (10**6, 'M'), (10**3, 'K')):
        rounded = f'{count / size:.3g}'
        if float(rounded) >= 1:
            return f'{rounded} {letter}'
    return str(count) if count else _NOTHING


def _model(model: ModelLayers) -> str:
    return f'{model.name}, {human(model.parameters)} parameters'


def _table(*columns: Any) -> Table:
    """A table whose first two columns are names and whose others are figures; what is too long is folded, not cut."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify='left' if index < 2 else 'right', overflow='fold')
    return table


def _sides(*columns: str, alone: bool) -> list[str]:
    """Headings of the columns that each model has, the first with the model's name above."""
    if alone:
        return list(columns)
    return [
        f'{role if index == 0 else ""}\n{column}'
        for role in ('student', 'teacher')
        for index, column in enumerate(columns)
    ]


def _one(sides: Sequence[Any], text: Any) -> str:
    """What both sides have in common, or both texts."""
    texts = list(dict.fromkeys(text(side) for side in sides if side is not None))
    return ' / '.join(texts)


def _maker(known: Known) -> str:
    return known.path or (known.text if not known.shapes else '(no module)')


def _known(known: Known | None) -> list[str]:
    if known is None or not known.shapes:
        return [_NOTHING if known is None else '', '']
    return [_shapes(known.shapes), _strides(known.strides)]


def _layer(layer: Layer | None) -> list[str]:
    if layer is None:
        return [_NOTHING, '', '']
    return [_shapes(layer.shapes), _strides(layer.strides), human(layer.parameters)]


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    """A shape; of several calls the first, and whether others differ."""
    text = 'x'.join(map(str, shapes[0]))
    return text if len(set(shapes)) == 1 else f'{text} ...'


def _strides(strides: Sequence[int]) -> str:
    return str(strides[0]) if strides[0] == strides[-1] else f'{strides[0]} to {strides[-1]}'


def _roles(row: LayerRow) -> str:
    of_student, of_teacher = ', '.join(row.student_roles), ', '.join(row.teacher_roles)
    if row.student is None or row.teacher is None or of_student == of_teacher:
        return of_student or of_teacher
    return '; '.join(f'{role}: {text}' for role, text in (('student', of_student), ('teacher', of_teacher)) if text)


def _remark(row: KnownRow) -> str:
    """What a method has to bridge between the two."""
    if row.student is None or row.teacher is None:
        return 'teacher only' if row.student is None else 'student only'
    of_student, of_teacher = row.student, row.teacher
    if not of_student.shapes:
        return '' if of_student.text == of_teacher.text else 'differ'
    unequal = []
    if of_student.shapes[0][0] != of_teacher.shapes[0][0]:
        unequal.append('classes' if 'logits' in row.role else 'channels')
    if of_student.strides != of_teacher.strides:
        unequal.append('strides')
    return f'{" and ".join(unequal)} differ' if unequal else 'match'
