"""The table of all methods: what each is called, where its configs lie, and what it was measured to bring."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from benchmarks.catalogue import CONFIGS, MEASURED, Pair, comparisons, methods, recipes
from benchmarks.measured import measured
from benchmarks.settings_tables import plain_table, title
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Feature, Method
from mmkd_plugin.study.table import spread

ANY_LOSS = 'docs/block.md#feature-any-loss-of-features'
"""Where losses of others are described."""


@dataclasses.dataclass(frozen=True)
class Gains:
    """What the methods brought to one student.

    Attributes:
        metric: What is gained, such as ``mAP``.
        by_label: Mean and deviation over seeds, by the label of the pair; those of ``loss_weight='auto'`` behind.
    """

    metric: str
    by_label: dict[str, str]


def gained(family: str) -> Gains:
    """Read the gains of one family of models from the committed numbers.

    Args:
        family: As in the names of the pairs.

    Returns:
        The gains as the tables of a study show them.
    """
    found = measured(f'{MEASURED}_{family}')
    labels: dict[str, str] = {}
    for row in found.rows:
        if not row.whole:
            before = f'{labels[row.label]}; ' if row.label in labels else ''
            labels[row.label] = f'{before}{"auto " if row.auto else ""}{spread(row.gains, signed=True)}'
    return Gains(found.task.main, labels)


def methods_table() -> str:
    """A row for every method, for every recipe of :class:`Feature` and for every combination that was measured.

    Raises:
        DistillError: If a measured label belongs to no pair.
    """
    every = {family: gained(family) for family in comparisons()}
    families = dict(sorted(every.items(), key=lambda item: (item[1].metric, item[0])))
    for family, gains in families.items():
        unknown = set(gains.by_label) - {pair.label for pair in comparisons()[family]}
        if unknown:
            raise DistillError(
                f'The results of {family} name {sorted(unknown)}, which no pair of configs/{MEASURED} is called; '
                'rename them in the file or add the pair.'
            )
    heads = ['method', '`type`', 'recipes and configs']
    heads += [f'gain in {gains.metric}, {family}' for family, gains in families.items()]
    cells = []
    for text, kinds, places, pairs in _entries():
        found = {pair.family: families[pair.family].by_label.get(pair.label, '-') for pair in pairs}
        types = ', '.join(f'`{_name(kind)}`' for kind in kinds)
        cells.append((text, types, ', '.join(places), *(found.get(family, '-') for family in families)))
    return plain_table(cells, heads)


def _entries() -> list[tuple[str, list[type[Method]], list[str], list[Pair]]]:
    """Title, types, links and measured pairs of every row."""
    measured_pairs = [pair for pairs in comparisons().values() for pair in pairs]
    single = [pair for pair in measured_pairs if len(pair.methods) == 1]
    found = []
    for task in ('detection', 'segmentation'):
        for kind in methods().values():
            if kind.task == task:
                own = [pair for pair in single if kind in pair.methods.values()]
                found.append((title(kind), [kind], _places(kind), own))
    for recipe in recipes():
        if list(recipe.methods.values()) == [Feature]:
            own = [pair for pair in single if recipe.path in pair.recipes]
            found.append((_short(recipe.title), [Feature], [_link(recipe.path)], own))
    for kind in methods().values():
        if not kind.task:
            found.append((title(kind), [kind], [f'[{ANY_LOSS.partition("#")[0]}]({ANY_LOSS})'], []))
    together = [pair for pair in measured_pairs if len(pair.methods) > 1]
    for label in dict.fromkeys(pair.label for pair in together):
        own = [pair for pair in together if pair.label == label]
        found.append((_combined(own[0]), list(own[0].methods.values()), _of_combination(own[0]), own))
    return found


def _places(kind: type[Method]) -> list[str]:
    """Links to the full configs of a method and to its recipes."""
    folders = dict.fromkeys(recipe.folder for recipe in recipes() if kind in recipe.methods.values())
    full = [_link(Path(folder)) for folder in folders if (CONFIGS / folder / 'README.md').is_file()]
    return full + [_link(Path('_base_', folder)) for folder in folders]


def _combined(pair: Pair) -> str:
    """What a combination is called: by its recipe, or by its own docstring."""
    same = [recipe for recipe in recipes() if recipe.methods.keys() == pair.methods.keys()]
    return _short(same[0].title if same else pair.title)


def _of_combination(pair: Pair) -> list[str]:
    same = [recipe.path for recipe in recipes() if recipe.methods.keys() == pair.methods.keys()]
    return [_link(path) for path in same or [pair.path.parent.relative_to(CONFIGS)]]


def _short(text: str) -> str:
    """A recipe's title without whose settings it has."""
    return text.partition(', with ')[0]


def _link(path: Path) -> str:
    """A link to a file or folder below ``configs/``."""
    return f'[{path.as_posix()}](configs/{path.as_posix()})'


def _name(kind: type[Method]) -> str:
    return next(name for name, other in methods().items() if other is kind)
