"""The ``distill`` block that a user writes."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Union

from typing_extensions import Annotated

from mmkd_plugin.block.teacher_cache import CacheBlock, parse_cache
from mmkd_plugin.block.unlabelled import UnlabelledBlock
from mmkd_plugin.distillers.balance import SETTLE
from mmkd_plugin.distillers.entries import LEVEL
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Method
from mmkd_plugin.methods.base import divided
from mmkd_plugin.methods.lookup import find_method
from mmkd_plugin.teachers import TeacherOptions
from mmkd_plugin.utilities.compiling import require_compiler
from mmkd_plugin.utilities.settings import (
    Factor,
    Positive,
    PowerOf,
    Within,
    check_all,
    from_dict,
    require_finite,
    settings_of,
)

ONLY = 'teacher'
"""Name of the teacher where the user gives it none, because there is one."""


@dataclasses.dataclass(frozen=True)
class TeacherKeys:
    """What is said of a teacher.

    Attributes:
        teacher: Zoo name (``mmdet::...``), path of a config file, or a config dict, whole or the model alone.
        teacher_ckpt: Path or address of its weights, or ``package::path`` for a file beside a package's configs;
            ``'random'`` accepts an untrained teacher on purpose.
        teacher_prefix: The part of that file that holds the teacher, such as ``'student'`` or ``'teacher'``, where
            several models in it fit; ``None`` finds it.
        trust_checkpoint: Whether its file may run code of its own while it is read.
        teacher_scale: Size of the images that it sees in those of the student, a power of 2, so that a cell of one
            model covers the same pixels as one of the other's.
        teacher_options: How its forward pass is made cheaper: keys of their own.
    """

    teacher: Union[str, Dict[str, Any], None] = None
    teacher_ckpt: Optional[str] = None
    teacher_prefix: Optional[str] = None
    trust_checkpoint: bool = False
    teacher_scale: Annotated[float, PowerOf(2)] = 1.0
    teacher_options: Dict[str, Any] = dataclasses.field(default_factory=dict)

    def options(self, where: str) -> TeacherOptions:
        """The options, checked; ``where`` is the path of the teacher's keys."""
        return TeacherOptions.parse(self.teacher_options, f'{where}.teacher_options')


@dataclasses.dataclass(frozen=True)
class TeacherBlock(TeacherKeys):
    """One of several teachers.

    Attributes:
        loss_weight: Factor on the weights of all methods that it teaches.
    """

    loss_weight: Factor = 1.0


@dataclasses.dataclass(frozen=True)
class WrittenBlock(TeacherKeys):
    """The keys that a user may write under ``distill``, with those of the only teacher.

    Attributes:
        teachers: Several teachers instead of the keys above, by names of your choice.
        methods: Methods by a name of your choice; each has a ``type`` and its own keys; ``None`` removes an inherited
            one.
        inherit: Whether the student's neck and heads start from the teacher's weights: ``True`` refuses where they
            differ, ``'auto'`` copies nothing there, ``'matching'`` copies what agrees in name and shape; of several
            teachers, the name of one.
        unlabelled: Images without labels that join each batch of a segmentor: keys of their own.
        self_check: Whether the first step prints its table and stops the run on a fault.
        share: Ratio of the gradient of all methods with ``loss_weight='auto'`` to that of the task loss; each of them
            that has no ``share`` of its own gets an equal part, pairs a tenth and discriminators a fiftieth at most.
        settle: Part of the run, of 100 steps at least and counted from a method's first step, after which a weight that
            finds itself is held; 1 measures to the end.
        teacher_cache: Whether the teacher's records are kept on the disk and read instead of running it, for pipelines
            that give the same image each time up to a flip; a dict has keys of its own.
        compile_losses: Whether torch compiles the losses when they are first called, which takes a minute or so and
            makes large maps cheaper; one with a discriminator stays as it is.
    """

    teachers: Dict[str, Any] = dataclasses.field(default_factory=dict)
    methods: Dict[str, Any] = dataclasses.field(default_factory=dict)
    inherit: Union[bool, str] = False
    unlabelled: Optional[Dict[str, Any]] = None
    self_check: bool = True
    share: Positive = 3.0
    settle: Annotated[float, Within(0, 1)] = SETTLE
    teacher_cache: Union[bool, Dict[str, Any]] = False
    compile_losses: bool = False


@dataclasses.dataclass(frozen=True)
class DistillBlock:
    """A checked block.

    Attributes:
        teachers: All teachers by name; one to which the user gave no name is ``ONLY``.
        methods: The methods that have a weight, by name; each knows its teacher.
        inherit: Whether the student's neck and heads start from a teacher's weights, or the name of that teacher.
        unlabelled: Images without labels that join each batch, None for none.
        self_check: Whether the first step prints its table and stops the run on a fault.
        teacher_cache: How the teachers' records are kept on the disk, None for not at all.
        compile_losses: Whether torch compiles the losses.
        settle: After which part of the run weights that find themselves are held.
    """

    teachers: Dict[str, TeacherBlock]
    methods: Dict[str, Method]
    inherit: Union[bool, str] = False
    unlabelled: Optional[UnlabelledBlock] = None
    self_check: bool = True
    teacher_cache: Optional[CacheBlock] = None
    compile_losses: bool = False
    settle: float = SETTLE

    @classmethod
    def parse(cls, values: Dict[str, Any]) -> DistillBlock:
        """Check what a user wrote; nothing is built.

        Args:
            values: The dict under ``distill``; it is left as it is.

        Returns:
            The checked block, without the methods of weight 0.

        Raises:
            DistillError: On an unknown key, an unknown method, a wrong type or a missing method.
        """
        if not isinstance(values, dict):
            raise DistillError(
                f'"distill" is {values!r}; it must be a dict such as dict(teacher=..., teacher_ckpt=...).'
            )
        written = WrittenBlock(**check_all(values, settings_of(WrittenBlock), 'distill'))
        if not [name for name in written.methods if name != '_scope_']:
            raise DistillError(
                'The distill block names no method; inherit a recipe such as "mmkd_plugin::_base_/fgd/one_stage.py" or '
                "set distill.methods=dict(fgd=dict(type='FGD'))."
            )
        teachers = _parse_teachers(written)
        methods = {}
        for name, value in written.methods.items():
            if name != '_scope_' and value is not None:
                method = _parse_method(name, value)
                method.teacher = _teacher_of(name, method, teachers)
                methods[name] = method
        _give_shares(methods, written.share, [key for key in ('share', 'settle') if key in values])
        methods = {name: method.scaled(teachers[str(method.teacher)].loss_weight) for name, method in methods.items()}
        # Beyond the settings proper: the configs of losses, optimizers and connectors. Those of models are not ours.
        require_finite(written.methods, 'distill.methods')
        _check_inherit(written.inherit, teachers)
        active = {name: method for name, method in methods.items() if method.active}
        unlabelled = None
        if written.unlabelled is not None:
            unlabelled = from_dict(UnlabelledBlock, written.unlabelled, 'distill.unlabelled')
            for name, method in active.items():
                method.check_unlabelled(f'distill.methods.{name}')
        cache = parse_cache(written.teacher_cache, 'distill.teacher_cache')
        if written.compile_losses:
            require_compiler()
        return cls(
            teachers,
            active,
            written.inherit,
            unlabelled,
            written.self_check,
            cache,
            written.compile_losses,
            written.settle,
        )

    @staticmethod
    def default_share() -> float:
        """The share of a block that names none."""
        return settings_of(WrittenBlock)['share'].default

    def used_teachers(self) -> Dict[str, TeacherBlock]:
        """The teachers that a method with a weight, or inheriting, needs."""
        used = {method.teacher for method in self.methods.values()} | {self.inherit}
        return {name: teacher for name, teacher in self.teachers.items() if name in used}

    def require_teacher(self) -> None:
        """Refuse to train without a teacher.

        Raises:
            DistillError: If the teacher or its checkpoint is not named.
        """
        for name, teacher in self.used_teachers().items():
            where = 'distill' if name == ONLY else f'distill.teachers.{name}'
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


def _parse_teachers(written: WrittenBlock) -> Dict[str, TeacherBlock]:
    """All teachers by name."""
    named = {name: value for name, value in written.teachers.items() if name != '_scope_' and value is not None}
    keys = list(settings_of(TeacherKeys))
    if not named:
        written.options('distill')
        return {ONLY: TeacherBlock(**{key: getattr(written, key) for key in keys})}
    given = [key for key in keys if getattr(written, key) != settings_of(TeacherKeys)[key].default]
    if given:
        raise DistillError(
            f'The distill block has "teachers" and "{given[0]}"; move the latter into distill.teachers.<name>.'
        )
    teachers = {}
    for name, values in named.items():
        where = f'distill.teachers.{name}'
        if not name.isidentifier() or name == ONLY:
            raise DistillError(f'"{name}" cannot name a teacher; use letters, digits and underscores.')
        if not isinstance(values, dict):
            raise DistillError(f'"{where}" must be a dict such as dict(teacher=..., teacher_ckpt=...).')
        teachers[name] = from_dict(TeacherBlock, values, where, dict(weight='loss_weight'))
        teachers[name].options(where)
    return teachers


def _parse_method(name: str, values: Any) -> Method:
    """One method."""
    where = f'distill.methods.{name}'
    if not name.isidentifier() or LEVEL in name:
        raise DistillError(f'"{name}" cannot name a method; use letters, digits and underscores, without "{LEVEL}".')
    if not isinstance(values, dict) or 'type' not in values:
        raise DistillError(f'"{where}" must be a dict with a "type", for instance dict(type=\'FGD\').')
    kind = find_method(values['type'], f'{where}.type')
    if not issubclass(kind, Method):
        raise DistillError(
            f'"{where}.type" is {kind.__name__}, which is no method; derive it from mmkd_plugin.methods.Method.'
        )
    return kind.parse({key: value for key, value in values.items() if key != 'type'}, where)


def _teacher_of(name: str, method: Method, teachers: Dict[str, TeacherBlock]) -> str:
    """Name of the teacher that a method follows."""
    if method.teacher is None and len(teachers) == 1:
        return next(iter(teachers))
    if method.teacher is None or method.teacher not in teachers:
        unnamed = ONLY in teachers
        known = ', and the block has one teacher without a name' if unnamed else ''
        missing = f'is {method.teacher!r}, which is no teacher{known}' if method.teacher else 'is not set'
        raise DistillError(
            f'"distill.methods.{name}.teacher" {missing}; '
            + ('leave it out.' if unnamed else f'name one of {", ".join(teachers)}.')
        )
    return method.teacher


def _give_shares(methods: Dict[str, Method], share: float, written: List[str]) -> None:
    """Divide the share of the block among the methods whose weight finds itself and that have none of their own."""
    found = {name: method for name, method in methods.items() if method.auto}
    if written and not found:
        raise DistillError(
            f'"distill.{written[0]}" is for weights that find themselves, but no method has one; set '
            f"distill.methods.{next(iter(methods), '<name>')}.loss_weight='auto' with it, or take it out."
        )
    without = {name: method for name, method in found.items() if method.share is None}
    for name, part in divided(share, without).items():
        methods[name].share = part


def _check_inherit(inherit: Union[bool, str], teachers: Dict[str, TeacherBlock]) -> None:
    """Refuse to inherit from nobody in particular."""
    if not inherit or inherit in teachers:
        return
    if inherit not in (True, 'auto', 'matching'):
        raise DistillError(
            f'"distill.inherit" is {inherit!r}; it must be True or False or '
            + ("'auto' or 'matching'." if ONLY in teachers else f'the name of a teacher: {", ".join(teachers)}.')
        )
    if len(teachers) > 1:
        raise DistillError(
            f'"distill.inherit" is {inherit!r}, but there are several teachers; name the one to inherit from: '
            f'{", ".join(teachers)}.'
        )
