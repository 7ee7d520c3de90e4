"""Methods with one loss per pyramid level, whose arguments are known by their names."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, List, Tuple, Union

from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.parts import BATCH_FACTS, Entry, Parts, level_name
from mmkd_plugin.probe.models import LevelPair, ModelPair

FACTS = (*BATCH_FACTS, 'priors')
"""What a loss gets by the name of its argument besides the features of both models."""


class LevelMethod(Method):
    """A method with one loss per level of the neck, each with its own connector and parameters.

    The loss is called with the features of both models and, by the names of its arguments, with facts of the step:
    ``boxes``, ``valid``, ``image_shapes``, ``labels``, ``label``, ``image`` and ``priors``.
    """

    tap: Any = 'output'

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
    required, optional = _arguments(loss)
    named = {name: entry for name, entry in features.items() if name in required or name in optional}
    others = [name for name in required if name not in FACTS and name not in named]
    if others and not named and set(features) == {'student', 'teacher'} and len(others) == 2:
        student, teacher = sorted(others, key=_of_teacher)
        named = {student: features['student'], teacher: features['teacher']}
        for entry in named.values():
            if entry.get('like') == 'student':
                entry['like'] = student
        others = []
    if others or not named:
        wrong = f'an argument "{others[0]}"' if others else 'no feature'
        raise DistillError(
            f'"{where}": {loss.__name__} takes {wrong}, which a step does not know; there are '
            f'{", ".join((*features, *FACTS))}, and a loss of two features may call these as it likes.'
        )
    found: Dict[str, Any] = dict(named)
    for fact in FACTS:
        if fact in required or fact in optional and _has(fact, level, models):
            found[fact] = _fact(parts, fact, level, models, where)
    return found


def _fact(parts: Parts, fact: str, level: LevelPair, models: ModelPair, where: str) -> Entry:
    """The entry of a fact."""
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
    return fact in ('image', 'image_shapes') or (fact == 'label') == (models.student.task == 'segmentation')


def _arguments(loss: type) -> Tuple[List[str], List[str]]:
    """The names that a loss's ``forward`` must and may be called with."""
    forward: Callable = getattr(loss, 'forward')  # noqa: B009
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    named = [item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    required = [item.name for item in named if item.default is item.empty]
    return required, [item.name for item in named if item.name not in required]


def _of_teacher(argument: str) -> bool:
    return bool({'t', 'teacher'} & set(argument.lower().split('_')))
