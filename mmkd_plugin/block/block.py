"""The ``distill`` block that a user writes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Union

from mmkd_plugin.distillers.distiller import LEVEL, SINGLE
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.methods import METHODS, Method
from mmkd_plugin.utilities.typed import from_dict


@dataclasses.dataclass
class TeacherBlock:
    """One teacher.

    Attributes:
        teacher: Zoo name, path of a config file, or a config dict.
        teacher_ckpt: Path or address of its weights; ``'random'`` for none on purpose.
        trust_checkpoint: Whether its file may run code of its own while it is read.
        teacher_scale: Size of the images that it sees in those of the student, a power of 2.
        weight: Factor on the weights of all methods that it teaches.
    """

    teacher: Union[str, dict, None] = None  # noqa: UP007
    teacher_ckpt: Union[str, None] = None  # noqa: UP007
    trust_checkpoint: bool = False
    teacher_scale: float = 1.0
    weight: float = 1.0

    def check(self, where: str) -> None:
        """Refuse numbers that no teacher can work with.

        Raises:
            DistillError: On a scale that is no power of 2, or a negative weight.
        """
        if self.teacher_scale <= 0 or math.frexp(self.teacher_scale)[0] != 0.5:
            raise DistillError(
                f'"{where}.teacher_scale" is {self.teacher_scale:g}; it must be a power of 2, such as 2, so that a '
                "cell of one model covers the same pixels as one of the other's."
            )
        if self.weight < 0:
            raise DistillError(f'"{where}.weight" is {self.weight:g}; it must not be negative.')


@dataclasses.dataclass
class DistillBlock:
    """What a user may write under ``distill``.

    Attributes:
        teacher: Zoo name, path of a config file, or a config dict.
        teacher_ckpt: Path or address of the teacher's weights; ``'random'`` for none on purpose.
        teachers: Several teachers instead, by names of the user's choice; each has the keys of :class:`TeacherBlock`,
            and each method says with ``teacher`` which of them it follows.
        methods: Method configs by a name of the user's choice; each has a ``type`` and that method's own keys.
        inherit: Whether the student's neck and heads start from the teacher's weights; ``'auto'`` where they agree; of
            several teachers, the name of the one.
        trust_checkpoint: Whether the teacher's file may run code of its own while it is read.
        teacher_scale: Size of the images that the teacher sees in those of the student, a power of 2.
        self_check: Whether the first step prints its table and stops the run on a fault.
    """

    # Python 3.9 cannot evaluate "X | Y", and the types are evaluated to check what the user wrote.
    teacher: Union[str, dict, None] = None  # noqa: UP007
    teacher_ckpt: Union[str, None] = None  # noqa: UP007
    teachers: dict = dataclasses.field(default_factory=dict)
    methods: dict = dataclasses.field(default_factory=dict)
    inherit: Union[bool, str] = False  # noqa: UP007
    trust_checkpoint: bool = False
    teacher_scale: float = 1.0
    self_check: bool = True

    @classmethod
    def parse(cls, values: dict[str, Any]) -> DistillBlock:
        """Check a block; its methods become :class:`Method` objects, those of weight zero are dropped.

        Args:
            values: The dict under ``distill``.

        Returns:
            The checked block.

        Raises:
            DistillError: On an unknown key, an unknown method, a wrong type or a missing method.
        """
        if not isinstance(values, dict):
            raise DistillError(
                f'"distill" is {values!r}; it must be a dict such as dict(teacher=..., teacher_ckpt=...).'
            )
        block = from_dict(cls, values, 'distill')
        if not [name for name in block.methods if name != '_scope_']:
            raise DistillError(
                'The distill block names no method; inherit a recipe such as "mmkd_plugin::_base_/fgd/one_stage.py" or '
                "set distill.methods=dict(fgd=dict(type='FGD'))."
            )
        block.teachers = block._parse_teachers()
        methods = {}
        for name, method in block.methods.items():
            if name == '_scope_' or method is None:
                continue
            methods[name] = _parse_method(name, method)
        for name, method in methods.items():
            method.teacher = block._teacher_of(name, method)
            method.weight *= block.teachers[method.teacher].weight
        block.methods = {name: method for name, method in methods.items() if method.active}
        block._check_inherit()
        return block

    @property
    def several(self) -> bool:
        """Whether teachers have names."""
        return SINGLE not in self.teachers

    def used_teachers(self) -> dict[str, TeacherBlock]:
        """The teachers that a method with a weight, or inheriting, needs."""
        used = {method.teacher for method in self.methods.values()} | {self.inherit}
        return {name: teacher for name, teacher in self.teachers.items() if name in used}

    def _parse_teachers(self) -> dict[str, TeacherBlock]:
        """All teachers by name; one without a name is ``SINGLE``."""
        named = {name: value for name, value in self.teachers.items() if name != '_scope_' and value is not None}
        if not named:
            keys = [field.name for field in dataclasses.fields(TeacherBlock) if field.name != 'weight']
            only = TeacherBlock(**{key: getattr(self, key) for key in keys})
            only.check('distill')
            return {SINGLE: only}
        given = [key for key in ('teacher', 'teacher_ckpt') if getattr(self, key) is not None]
        if given:
            raise DistillError(
                f'The distill block has "teachers" and "{given[0]}"; move the latter into distill.teachers.<name>.'
            )
        teachers = {}
        for name, values in named.items():
            where = f'distill.teachers.{name}'
            if not name.isidentifier() or name == SINGLE:
                raise DistillError(f'"{name}" cannot name a teacher; use letters, digits and underscores.')
            if not isinstance(values, dict):
                raise DistillError(f'"{where}" must be a dict such as dict(teacher=..., teacher_ckpt=...).')
            teachers[name] = from_dict(TeacherBlock, values, where)
            teachers[name].check(where)
        return teachers

    def _teacher_of(self, name: str, method: Method) -> str:
        """Name of the teacher that a method follows."""
        if method.teacher is None and len(self.teachers) == 1:
            return next(iter(self.teachers))
        if method.teacher is None or method.teacher not in self.teachers:
            known = '' if self.several else ', and the block has one teacher without a name'
            missing = f'is {method.teacher!r}, which is no teacher{known}' if method.teacher else 'is not set'
            raise DistillError(
                f'"distill.methods.{name}.teacher" {missing}; '
                + (f'name one of {", ".join(self.teachers)}.' if self.several else 'leave it out.')
            )
        return method.teacher

    def _check_inherit(self) -> None:
        """Refuse to inherit from nobody in particular."""
        if not self.inherit or self.inherit in self.teachers:
            return
        if self.inherit not in (True, 'auto'):
            raise DistillError(
                f'"distill.inherit" is {self.inherit!r}; it must be True or False or '
                + (f'the name of a teacher: {", ".join(self.teachers)}.' if self.several else "'auto'.")
            )
        if len(self.teachers) > 1:
            raise DistillError(
                f'"distill.inherit" is {self.inherit!r}, but there are several teachers; name the one to inherit from: '
                f'{", ".join(self.teachers)}.'
            )

    def require_teacher(self) -> None:
        """Refuse to train without a teacher.

        Raises:
            DistillError: If the teacher or its checkpoint is not named.
        """
        for name, teacher in self.used_teachers().items():
            where = f'distill.teachers.{name}' if self.several else 'distill'
            if teacher.teacher is None:
                raise DistillError(
                    f'The distill block names no teacher; set {where}.teacher to a zoo name, a config file or a config '
                    'dict.'
                )
            if teacher.teacher_ckpt is None:
                raise DistillError(
                    f'The distill block names no weights for the teacher; set {where}.teacher_ckpt to a path or an '
                    'address.'
                )


def _parse_method(name: str, values: Any) -> Method:
    where = f'distill.methods.{name}'
    if not name.isidentifier() or LEVEL in name:
        raise DistillError(f'"{name}" cannot name a method; use letters, digits and underscores, without "{LEVEL}".')
    if isinstance(values, Method):
        return values
    if not isinstance(values, dict) or 'type' not in values:
        raise DistillError(f'"{where}" must be a dict with a "type", for instance dict(type=\'FGD\').')
    kind = values['type']
    if kind not in METHODS:
        raise DistillError(f'"{where}.type" is {kind!r}, which is no method: {nearest(str(kind), METHODS)}')
    return from_dict(METHODS[kind], {key: value for key, value in values.items() if key != 'type'}, where)
