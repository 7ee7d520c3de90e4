"""Methods with one loss per pyramid level, whose arguments are known by their names."""

from __future__ import annotations

import collections.abc
import inspect
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from typing_extensions import Literal, get_origin, get_type_hints

from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.lookup import known_methods
from mmkd_plugin.methods.parts import BATCH_FACTS, Entry, Parts, level_name
from mmkd_plugin.probe.models import LevelPair, ModelPair

FACTS = (*BATCH_FACTS, 'priors')
"""What a loss gets by the name of its argument besides the features of both models."""


class LevelMethod(Method):
    """A method with one loss per level of the neck, each with its own connector and parameters.

    The loss is called with the features of both models and, by the names of its arguments, with facts of the step:
    ``boxes``, ``valid``, ``image_shapes``, ``labels``, ``label``, ``image`` and ``priors``.

    Attributes:
        tap: ``'output'`` takes what the neck returns, ``'pre_norm'`` each level's last convolution.
    """

    tap: Literal['output', 'pre_norm'] = 'output'

    def check(self, where: str) -> None:
        """Refuse a method that does not name its one loss."""
        if set(self.losses) != {''}:
            raise DistillError(
                f'{type(self).__name__} names {len(self.losses)} losses, but a LevelMethod wires one; write '
                "losses = {'': MyLoss}, or derive it from Method and wire them in expand()."
            )

    def of_level(self, level: LevelPair) -> Dict[str, Any]:
        """What the loss of a level needs beside the user's settings."""
        return {}

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss per level, each with its own parameters."""
        parts = Parts()
        for index, level in enumerate(models.levels(self.tap)):
            loss = level_name(f'loss_{name}', index)
            features = dict(zip(('student', 'teacher'), parts.record_level(loss, level)))
            arguments = fill_in(parts, self.losses[''], features, level, models, f'distill.methods.{name}')
            parts.add_loss(loss, self.loss_config(**self.of_level(level)), **arguments)
        return parts


def fill_in(
    parts: Parts, loss: type, features: Dict[str, Entry], level: LevelPair, models: ModelPair, where: str
) -> Dict[str, Union[Entry, List[Entry]]]:
    """Where each argument of a loss comes from.

    Args:
        parts: Gets the recorders of the facts.
        loss: The class of the loss.
        features: The features, by the names that the plugin gives them; ``'student'`` and ``'teacher'`` may bear
            other names in a loss that takes just these two.
        level: The level that is compared.
        models: Student and teacher.
        where: The method's place in the config, for messages.

    Returns:
        The entries by argument. Facts that the model does not have are left out where the loss can do without.

    Raises:
        DistillError: If the loss takes what no step knows, or does not take both features.
    """
    required, optional = _arguments(loss, where)
    own = [name for name in required if name not in FACTS]
    if len(features) == 2 and len(own) == 2 and set(own) != set(features) and not set(features) & set(optional):
        student, teacher = sorted(own, key=_likeness)
        of_student, of_teacher = features.values()
        features = {student: of_student, teacher: dict(of_teacher, like=student)}
    unknown = [name for name in own if name not in features]
    missing = [name for name in features if name not in required and name not in optional]
    if unknown or missing:
        wrong = f'an argument "{unknown[0]}", which a step does not know' if unknown else f'no "{missing[0]}"'
        raise DistillError(
            f'"{where}": {loss.__name__} takes {wrong}; there are {", ".join((*features, *FACTS))}, of which a loss '
            'takes all features and may call them as it likes if there are two.'
        )
    _refuse_lists(loss, features, where)
    found: Dict[str, Any] = dict(features)
    for fact in FACTS:
        if fact in required or fact in optional and _has(fact, level, models):
            found[fact] = _fact(parts, fact, level, models, where)
    return found


def _fact(parts: Parts, fact: str, level: LevelPair, models: ModelPair, where: str) -> Entry:
    """The entry of a fact."""
    if fact in ('boxes', 'valid', 'labels') and models.student.task == 'segmentation':
        raise DistillError(
            f'"{where}": the loss takes {fact}, which the data of a segmentor such as the student, '
            f'{models.student.name}, do not hold; choose a method that needs none.'
        )
    if fact != 'priors':
        return parts.record_fact(fact)
    priors = parts.record_priors(level, models)
    if priors is None:
        raise DistillError(
            f'"{where}": the loss takes priors, but the head of the student, {models.student.name}, places no fixed '
            f'anchors at stride {level.student.stride}; choose a loss or a tap that needs none.'
        )
    return priors


def _has(fact: str, level: LevelPair, models: ModelPair) -> bool:
    """Whether the student's step knows a fact."""
    if fact == 'priors':
        return models.student.anchor_level(level.student.stride) is not None
    if fact in ('image', 'image_shapes'):
        return True
    return models.student.task == ('segmentation' if fact == 'label' else 'detection')


def _arguments(loss: type, where: str) -> Tuple[List[str], List[str]]:
    """The names that a loss, or its ``terms`` where it has several, must and may be called with."""
    called: Optional[Callable] = getattr(loss, 'terms', None) or getattr(loss, 'forward', None)
    if called is None:
        raise DistillError(f'"{where}": {loss.__name__} has no forward, so it is no loss; name one that has.')
    parameters = list(inspect.signature(called).parameters.values())[1:]
    named = [item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    required = [item.name for item in named if item.default is item.empty]
    return required, [item.name for item in named if item.name not in required]


def _refuse_lists(loss: type, features: Dict[str, Entry], where: str) -> None:
    """Refuse a loss over a list of levels, which would take the images of a batch for its levels."""
    called: Any = getattr(loss, 'terms', None) or getattr(loss, 'forward', None)
    try:
        hints = get_type_hints(inspect.unwrap(called))
    # Hints for type checkers alone, or for a newer Python.
    except (AttributeError, NameError, TypeError):
        return
    for name, entry in features.items():
        # A connector of the user's own may make a list.
        if get_origin(hints.get(name)) in (list, tuple, collections.abc.Sequence) and 'connector' not in entry:
            raise DistillError(
                f'"{where}": {loss.__name__} takes the list of all levels as its "{name}", but is given one level at a '
                f'time here; choose a loss of one level{_methods_of(loss)}.'
            )


def _methods_of(loss: type) -> str:
    """The methods that wire a loss, in words."""
    names = [key for key, kind in known_methods().items() if loss in getattr(kind, 'losses', {}).values()]
    return ''.join(f", or type='{name}'" for name in names)


def _likeness(argument: str) -> int:
    """Above 0 for a name of the teacher's feature, below for one of the student's."""
    words = set(argument.lower().split('_'))
    return len({'t', 'tea', 'teacher'} & words) - len({'s', 'stu', 'student'} & words)
