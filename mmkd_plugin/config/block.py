"""The ``distill`` block that a user writes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, Union

from mmkd_plugin.config.methods import METHODS, Method
from mmkd_plugin.config.typed import from_dict
from mmkd_plugin.distillers.distiller import LEVEL
from mmkd_plugin.errors import DistillError, nearest


@dataclasses.dataclass
class DistillBlock:
    """What a user may write under ``distill``.

    Attributes:
        teacher: Zoo name, path of a config file, or a config dict.
        teacher_ckpt: Path or address of the teacher's weights; ``'random'`` for none on purpose.
        methods: Method configs by a name of the user's choice; each has a ``type`` and that method's own keys.
        inherit: Whether the student's neck and heads start from the teacher's weights; ``'auto'`` where they agree.
        trust_checkpoint: Whether the teacher's file may run code of its own while it is read.
        teacher_scale: Size of the images that the teacher sees in those of the student, a power of 2.
        self_check: Whether the first step prints its table and stops the run on a fault.
    """

    # Python 3.9 cannot evaluate "X | Y", and the types are evaluated to check what the user wrote.
    teacher: Union[str, dict, None] = None  # noqa: UP007
    teacher_ckpt: Union[str, None] = None  # noqa: UP007
    methods: dict = dataclasses.field(default_factory=dict)
    inherit: Union[bool, Literal['auto']] = False  # noqa: UP007
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
        if block.teacher_scale <= 0 or math.frexp(block.teacher_scale)[0] != 0.5:
            raise DistillError(
                f'"distill.teacher_scale" is {block.teacher_scale:g}; it must be a power of 2, such as 2, so that a '
                "cell of one model covers the same pixels as one of the other's."
            )
        methods = {}
        for name, method in block.methods.items():
            if name == '_scope_' or method is None:
                continue
            methods[name] = _parse_method(name, method)
        block.methods = {name: method for name, method in methods.items() if method.active}
        return block

    def require_teacher(self) -> None:
        """Refuse to train without a teacher.

        Raises:
            DistillError: If the teacher or its checkpoint is not named.
        """
        if self.teacher is None:
            raise DistillError(
                'The distill block names no teacher; set distill.teacher to a zoo name, a config file or a config dict.'
            )
        if self.teacher_ckpt is None:
            raise DistillError(
                'The distill block names no weights for the teacher; set distill.teacher_ckpt to a path or an address.'
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
