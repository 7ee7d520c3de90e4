"""The answer to "which method for which pair", and which weights, from the committed numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.catalogue import MEASURED, Recipe, comparisons
from benchmarks.measured import Measured, Row, fingerprint, measured, names
from benchmarks.settings_tables import plain_table
from mmkd_plugin.study.compare import AUTO, STUDENT, TEACHER
from mmkd_plugin.study.pictures.spread import spread_picture
from mmkd_plugin.study.runs import Outcome
from mmkd_plugin.study.table import columns, markdown_table, rows, spread, verdict

TITLES = {
    'coco_mini_retina': 'RetinaNet, COCO-mini',
    'coco_mini_faster-rcnn': 'Faster R-CNN, COCO-mini',
    'coco_mini_pspnet': 'PSPNet, COCO-mini',
    'coco_mini_high-res': 'RetinaNet under a teacher of larger images, COCO-mini',
    'bccd': 'RetinaNet, BCCD',
    'bccd_faster-rcnn': 'Faster R-CNN, BCCD',
    'camvid': 'PSPNet, CamVid',
}
"""What each comparison is called, in the order of the page."""
SENTENCES = {
    'auto': "On COCO-mini loss_weight='auto' gained more than these weights: take it.",
    'published': "On COCO-mini these weights gained more than loss_weight='auto': keep them.",
    'either': "On COCO-mini these weights and loss_weight='auto' gained alike: take either.",
}
"""What the docstring of a recipe says of its weights."""


def results_table(key: str) -> str:
    """The table of a comparison as a study prints it, with times in those of the student alone.

    Args:
        key: Name of its file.
    """
    found = measured(key)
    task = found.task
    cells = rows(found.groups, STUDENT, relative=True, costs=found.costs)
    return markdown_table(cells, columns(task, relative=True)).rstrip('\n')


def answers() -> str:
    """For every pair of models the method that gained most, and what comes as near as the spread lets one tell."""
    cells = []
    for key in _known():
        found = measured(key)
        ranked = sorted(found.rows, key=lambda row: -row.gain)
        best = ranked[0]
        near = [row for row in ranked[1:] if _as_good(row, best)]
        said = verdict(best.gains)
        cheapest = min([best, *near], key=lambda row: row.time)
        gains = said == 'gains'
        cells.append(
            (
                TITLES[key],
                _main(found, found.groups[0]) if found.groups[0][0].name == TEACHER else '-',
                best.name if gains else f'none; {best.name} comes nearest',
                f'{spread(best.gains, signed=True)} {found.task.main}',
                said,
                ('; '.join(row.name for row in near) or '-') if gains else '-',
                f'{cheapest.name}: {cheapest.time:.2f} x' if gains else '-',
            )
        )
    heads = ('pair', 'teacher', 'most gained', 'gain', 'verdict', 'as good within the spread', 'cheapest of these')
    return plain_table(cells, heads)


def weights() -> str:
    """For every method and pair the gain with published weights and with those that find themselves."""
    cells = []
    for key in _known():
        found = measured(key)
        for row in found.rows:
            other = found.row(row.name + AUTO)
            if other is not None:
                own, again = spread(row.gains, signed=True), spread(other.gains, signed=True)
                cells.append((TITLES[key], row.name, own, again, advice(row, other)))
    return plain_table(cells, ('pair', 'method', 'published weights', "`loss_weight='auto'`", 'take'))


def mean_gains() -> str:
    """The mean over all pairs and methods of both sorts of weights, and how many rows lose."""
    both: dict[bool, list[Row]] = {False: [], True: []}
    for key in _known():
        found = measured(key)
        for row in found.rows:
            other = found.row(row.name + AUTO)
            if other is not None:
                both[False].append(row)
                both[True].append(other)
    cells = []
    for auto, found_rows in both.items():
        if found_rows:
            means = [row.gain for row in found_rows]
            losing = [row for row in found_rows if verdict(row.gains) == 'loses']
            text = "`loss_weight='auto'`" if auto else 'published'
            mean, least = f'{statistics.mean(means):+.1f}', f'{min(means):+.1f}'
            cells.append((text, str(len(means)), mean, least, str(len(losing))))
    return plain_table(cells, ('weights', 'rows', 'mean gain', 'least', 'rows that lose'))


def advice(published: Row, auto: Row) -> str:
    """Which weights gained more.

    Args:
        published: A row with published weights.
        auto: The same with weights that find themselves.

    Returns:
        ``'published'``, ``'auto'``, or ``'either'`` where the difference is within its deviation over the seeds.
    """
    return _which(_differences(published, auto))


def recommendation(recipe: Recipe) -> str:
    """What a recipe says of its weights, from the pairs of COCO-mini that inherit it with no method beside its own.

    Args:
        recipe: A base with a ``distill`` block.

    Returns:
        A sentence; nothing where no such pair was measured with both sorts of weights.
    """
    differences: list[float] = []
    for family, pairs in comparisons().items():
        for pair in pairs:
            if recipe.path in pair.recipes and recipe.methods.keys() == pair.methods.keys():
                found = measured(f'{MEASURED}_{family}')
                own, auto = found.row(pair.label), found.row(pair.label + AUTO)
                if own is not None and auto is not None:
                    differences += _differences(own, auto)
    return SENTENCES[_which(differences)] if differences else ''


def results_tables() -> dict[str, str]:
    """Every region of docs/results.md that has a comparison."""
    return {key: results_table(key) for key in _known()}


def pictures() -> dict[str, str]:
    """The picture of every family of COCO-mini that was measured, by the key of its numbers."""
    keys = [f'{MEASURED}_{family}' for family in comparisons()]
    return {key: f'docs/images/spread_{key}.png' for key in keys if key in names()}


def stale_pictures(root: Path) -> list[str]:
    """The pictures that were not made of the numbers that are there now."""
    return [picture for key, picture in pictures().items() if _source(root / picture) != fingerprint(key)]


def draw(picture: str, root: Path) -> None:
    """Draw every seed of every row of a family.

    Args:
        picture: One of :func:`pictures`.
        root: What its path is relative to.
    """
    key = next(key for key, path in pictures().items() if path == picture)
    spread_picture(measured(key).groups, STUDENT, root / picture, fingerprint(key))


def page() -> dict[str, str]:
    """Every region of docs/which_method.md."""
    return {'answers': answers(), 'weights': weights(), 'mean gains': mean_gains()}


def _source(path: Path) -> str:
    """What a picture says of what it was made."""
    if not path.is_file():
        return ''
    with Image.open(path) as image:
        return str(image.info.get('Source', ''))


def _differences(published: Row, auto: Row) -> list[float]:
    """What each seed gains by weights that find themselves, beside the published ones."""
    return [one - other for one, other in zip(auto.gains, published.gains)]


def _which(differences: Sequence[float]) -> str:
    return {'gains': 'auto', 'loses': 'published'}.get(verdict(differences), 'either')


def _known() -> list[str]:
    return [key for key in TITLES if key in names()]


def _as_good(row: Row, best: Row) -> bool:
    """Whether the seeds do not tell a row from the best one."""
    differences = [one - other for one, other in zip(best.gains, row.gains)]
    return len(differences) > 1 and verdict(differences) != 'gains'


def _main(found: Measured, group: Sequence[Outcome]) -> str:
    task = found.task
    return spread([100 * outcome.metrics[task.metrics[task.main]] for outcome in group])
