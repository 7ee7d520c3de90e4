"""What there is to measure: the methods, their recipes and the pairs of models, read from the registry and configs/."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Method
from mmkd_plugin.methods.lookup import known_methods

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
MEASURED = 'coco_mini'
"""Folder of the pairs on which every method is measured."""

_RECIPES = '_base_'
_OURS = f'mmkd_plugin::{_RECIPES}/'


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A base that brings a ``distill`` block.

    Attributes:
        path: Its file below ``configs/``.
        title: First sentence of its docstring.
        methods: The methods with a weight in its block, by name.
        bases: How many other files it is made of.
    """

    path: Path
    title: str
    methods: dict[str, type[Method]]
    bases: int

    @property
    def folder(self) -> str:
        """The folder that it shares with its variants."""
        return self.path.parent.name


@dataclasses.dataclass(frozen=True)
class Pair:
    """A student and a teacher of one family, with a ``distill`` block.

    The file is called ``<names of the methods>_<family>_<teacher>_to_<student>.py``.

    Attributes:
        path: The config.
        title: First sentence of its docstring, where it has one.
        written: The methods with a weight in its block, by name, in the order of the file's name.
        recipes: The recipes that it inherits, below ``configs/``.
        family: Which models these are, such as ``retina``.
        teacher: The teacher, in the words of the file's name.
        student: The student, likewise.
    """

    path: Path
    title: str
    written: dict[str, Method]
    recipes: tuple[Path, ...]
    family: str
    teacher: str
    student: str

    @property
    def methods(self) -> dict[str, type[Method]]:
        """Their kinds, by name."""
        return {name: type(method) for name, method in self.written.items()}

    @property
    def label(self) -> str:
        """What tables call it."""
        return ' + '.join(self.methods)

    @property
    def alone(self) -> Path:
        """Config of the student without a teacher."""
        return self.path.with_name(f'{self.family}_{self.student}.py')

    @property
    def of_two_models(self) -> bool:
        """Whether the teacher is another model of the same folder, trained on the same images."""
        teacher = self.path.with_name(f'{self.family}_{self.teacher}.py')
        return self.teacher != self.student and teacher.is_file()


def methods() -> dict[str, type[Method]]:
    """The methods that this project registers, by name."""
    return {name: kind for name, kind in known_methods().items() if kind.__module__.startswith('mmkd_plugin.')}


@functools.lru_cache(maxsize=None)
def recipes() -> tuple[Recipe, ...]:
    """All recipes, by path; files that hold nothing but the recipe of another folder are left out."""
    found = []
    for path in sorted((CONFIGS / _RECIPES).glob('*/*.py')):
        bases = _bases(path)
        block = None if any(base.startswith('../') for base in bases) else _block(path)
        if block is not None:
            kinds = {name: type(method) for name, method in block.methods.items()}
            found.append(Recipe(path.relative_to(CONFIGS), first_sentence(path), kinds, len(bases)))
    return tuple(found)


@functools.lru_cache(maxsize=None)
def pairs(folder: str = MEASURED) -> tuple[Pair, ...]:
    """All pairs of a folder: the single methods first, then what is put together of them.

    Args:
        folder: Its name below ``configs/``.

    Raises:
        DistillError: If the name of a file does not begin with the names of its methods.
    """
    found = []
    for path in sorted((CONFIGS / folder).glob('*.py')):
        block = _block(path)
        if block is not None:
            found.append(_pair(path, block))
    return tuple(sorted(found, key=lambda pair: (len(pair.methods), pair.path.stem)))


def comparisons(folder: str = MEASURED) -> dict[str, list[Pair]]:
    """What is compared with a student alone, by family: every pair of two different models."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs(folder):
        if pair.of_two_models:
            found.setdefault(pair.family, []).append(pair)
    return found


def general_recipes(task: str) -> dict[str, Recipe]:
    """The simplest recipe of each method that every model of a task can be distilled with.

    Args:
        task: ``'detection'`` or ``'segmentation'``.

    Returns:
        The recipes by the name of the method, those of fewest methods first, then those that build on no other.
    """
    wanted = {kind: name for name, kind in methods().items() if kind.general and kind.task == task}
    found: dict[str, Recipe] = {}
    for recipe in sorted(recipes(), key=lambda recipe: (len(recipe.methods), recipe.bases, recipe.path)):
        for kind in recipe.methods.values():
            if kind in wanted:
                found.setdefault(wanted[kind], recipe)
    return found


def first_sentence(path: Path) -> str:
    """First sentence of a config's docstring, without the full stop; nothing where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    # "et al." ends no sentence.
    return re.split(r';\s|\.(?=\s+[A-Z]|\s*$)', text.replace('\n', ' '), maxsplit=1)[0]


def _pair(path: Path, block: DistillBlock) -> Pair:
    names = sorted(block.methods, key=path.stem.find)
    label = '_'.join(names) + '_'
    rest = re.fullmatch(r'([^_]+)_(.+)_to_(.+)', path.stem[len(label) :])
    if not path.stem.startswith(label) or rest is None:
        raise DistillError(
            f'"{path}" distils with {", ".join(block.methods)}; call it "{label}<family>_<teacher>_to_<student>.py".'
        )
    written = {name: block.methods[name] for name in names}
    return Pair(path, first_sentence(path), written, tuple(_inherited(path)), *rest.groups())


def _block(path: Path) -> DistillBlock | None:
    """The checked block of a config, if it has one."""
    values: dict[str, Any] | None = Config.fromfile(path).get('distill')
    return None if values is None else DistillBlock.parse(values)


def _bases(path: Path) -> list[str]:
    """What a config names under ``_base_``."""
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            written = ast.literal_eval(node.value)
            return [written] if isinstance(written, str) else list(written)
    return []


def _inherited(path: Path) -> Iterator[Path]:
    """The recipes that a config names, itself or through its bases."""
    for base in _bases(path):
        if base.startswith(_OURS):
            yield Path(_RECIPES, base[len(_OURS) :])
        elif '::' not in base:
            yield from _inherited(path.parent / base)
