"""One draw: what a user writes and types, with the mistake that was made in it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'config.py'
"""The user's config, in the folder of the case."""

WRONG, FINE, EITHER = 'wrong', 'fine', 'either'
"""What is known of an input: a mistake; right; or right where it has an effect."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A student, its teacher and the methods that fit them.

    Attributes:
        name: What it is called.
        task: ``'detection'`` or ``'segmentation'``.
        student: Config of the student below ``configs/``.
        teacher: Config of the teacher, likewise.
        weights: Checkpoint of the teacher, likewise.
        recipes: Recipe bases that fit, below ``configs/``.
    """

    name: str
    task: str
    student: str
    teacher: str
    weights: str
    recipes: tuple[str, ...]


SCENES = {
    scene.name: scene
    for scene in (
        Scene(
            'retina',
            'detection',
            'coco_mini/retina_r18.py',
            'coco_mini/retina_r34.py',
            'coco_mini/retina_r34.pth',
            (
                '_base_/fgd/one_stage.py',
                '_base_/fgi/one_stage.py',
                '_base_/chen/one_stage.py',
                '_base_/cwd/neck.py',
                '_base_/pkd/neck.py',
            ),
        ),
        Scene(
            'faster-rcnn',
            'detection',
            'coco_mini/faster-rcnn_r18.py',
            'coco_mini/faster-rcnn_r34.py',
            'coco_mini/faster-rcnn_r34.pth',
            ('_base_/fgd/two_stage.py', '_base_/fgi/two_stage.py', '_base_/chen/two_stage.py', '_base_/cwd/neck.py'),
        ),
        Scene(
            'pspnet',
            'segmentation',
            'coco_mini/pspnet_r18.py',
            'coco_mini/pspnet_r34.py',
            'coco_mini/pspnet_r34.pth',
            (
                '_base_/structured_seg/pixel.py',
                '_base_/structured_seg/pixel_pair.py',
                '_base_/structured_seg/pixel_pair_holistic.py',
                '_base_/pspnet_kd/pspnet.py',
                '_base_/cwd/logits.py',
            ),
        ),
    )
}
"""The small pairs, whose teachers' weights come with the project."""


@dataclasses.dataclass
class Case:
    """What one draw consists of.

    Attributes:
        kind: The group of inputs that it is from.
        scene: Its models.
        told: What is special, in a few words.
        bases: The bases of the config, as a user writes them.
        values: What the config says below its bases.
        arguments: What is typed behind the tool.
        tool: File below ``tools/``, or ``'mmkd'``.
        options: ``--cfg-options``.
        sort: One of ``WRONG``, ``FINE`` and ``EITHER``.
        teacher_file: What kind of file the teacher's weights are; see :mod:`benchmarks.fuzz.files`.
        data: What is the matter with the data; likewise.
        before: The values before the mistake, to tell whether it had an effect.
    """

    kind: str
    scene: Scene
    told: str = 'nothing'
    bases: list[str] = dataclasses.field(default_factory=list)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    arguments: list[str] = dataclasses.field(default_factory=lambda: [CONFIG])
    tool: str = 'train.py'
    options: list[str] = dataclasses.field(default_factory=list)
    sort: str = FINE
    teacher_file: str = ''
    data: str = ''
    before: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def distill(self) -> dict[str, Any]:
        """The user's block."""
        return self.values['distill']

    def text(self, values: dict[str, Any] | None = None) -> str:
        """The config as it is written."""
        lines = [f'_base_ = {self.bases!r}']
        lines += [f'{key} = {spelled(value)}' for key, value in (self.values if values is None else values).items()]
        return '\n'.join(lines) + '\n'


def spelled(value: Any) -> str:
    """A value as Python source; numbers that are not finite as well."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key!r}: {spelled(item)}' for key, item in value.items()) + '}'
    if isinstance(value, (list, tuple)):
        items = ', '.join(map(spelled, value))
        return f'[{items}]' if isinstance(value, list) else f'({items},)'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)
