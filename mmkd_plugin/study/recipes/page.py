"""What came of recipes: lines for the console, and a page for the documentation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mmkd_plugin.engine.inspection import DWARFS
from mmkd_plugin.study.layer_tables import human
from mmkd_plugin.study.recipes.check import SIZE, Checked, short_name
from mmkd_plugin.study.recipes.watch import LossRow
from mmkd_plugin.study.table import markdown_table

_SLIGHT = 1e-4
"""A term of less than this share of the task loss is pointed out."""

_COLUMNS = ('recipe', 'parameters', 'loss', 'strides', 'channels', 'terms')


def lines_of(checked: Checked) -> list[str]:
    """What a recipe came to, for the console."""
    if checked.fault:
        return [f'FAILED: {checked.fault}']
    lines = [f'works, {checked.seconds:.0f} s: {_parameters(checked)} parameters (student / teacher)']
    lines += [f'  {row.name}: {_strides(row)}, {_channels(row)} channels: {_terms(row)}' for row in checked.losses]
    return lines + [f'  {remark}' for remark in remarks(checked)]


def summary(found: Sequence[Checked]) -> str:
    """How many recipes work."""
    works = sum(not checked.fault for checked in found)
    return f'{works} of {len(found)} {"recipe works" if len(found) == 1 else "recipes work"}.'


def remarks(checked: Checked) -> list[str]:
    """What is worth a look in a recipe, a sentence each."""
    said = list(checked.remarks)
    for row in checked.losses:
        for term, share in row.terms.items():
            if abs(share) > DWARFS:
                said.append(f'"{row.name}.{term}" is {share:.0f} times the task loss.')
            elif abs(share) < _SLIGHT:
                said.append(f'"{row.name}.{term}" is {_percent(share)} of the task loss.')
    return said


def page(found: Sequence[Checked], size: int = SIZE) -> str:
    """The page in Markdown.

    Args:
        found: What the recipes came to.
        size: Side of the images in pixels.
    """
    cells = [row for checked in found for row in _rows(checked)]
    table = markdown_table(cells, _COLUMNS).replace(' ---: |', ' --- |')
    named = [(short_name(checked.name), remark) for checked in found for remark in remarks(checked)]
    grouped: dict[str, list[str]] = {}
    for name, remark in named:
        grouped.setdefault(remark, []).append(f'`{name}`')
    notes = ''.join(f'- {remark} ({", ".join(names)})\n' for remark, names in grouped.items())
    return f"""# The recipes, one step each

{summary(found)}

Written by `make recipes`. `mmkd check-recipes [CONFIG ...]` does the same for configs of your own, and for all that are
shipped where none is named. Each config is expanded, its student and its teacher are built as large as their configs
make them, and a step is trained on two generated images of {size} x {size} pixels: forward, backward, optimizer, and
the discriminator where there is one. A recipe works if every term is finite and sends a gradient into the student's
features. A term may be at rest in a batch, as the bounded regression of `Chen` is where the student is no worse than
its teacher; it then has up to ten batches to show that it works.

No data and no weights are needed: student and teacher start from random ones. So a share of the task loss tells that a
term is there, and little more; it is not that of a training with a real teacher. Random networks in evaluation mode
give features of any size, those of caffe style the largest, as their images are divided by no deviation, and FGD, FGI
and hints go by the square. The soft classes of `Chen` and of `PixelWise` hold the entropy of the teacher's classes,
which a trained teacher has little of, over all anchors or pixels; it gives no gradient.

- *parameters*: student / teacher.
- *strides*: of the maps that are compared, in pixels of the student's image, `17/16` where student and teacher differ
  and the teacher's map is brought to the student's size; `-` for what is no map, as the predictions for RoIs.
- *channels*: student / teacher, of a map or of the logits (`81` for 80 classes and background) and boxes (`4`), before
  any adaptation.
- *terms*: their share of the task loss, levels added up.

{table}
{f'Worth a look:{chr(10)}{chr(10)}{notes}' if notes else ''}"""


def _rows(checked: Checked) -> list[tuple[str, ...]]:
    """Rows of the table: one for each loss, the recipe's name and size in the first."""
    name = f'`{short_name(checked.name)}`'
    if checked.fault:
        return [(name, '', '', '', '', f'FAILED: {checked.fault}'.replace('|', '\\|'))]
    firsts = itertools.chain([(name, _parameters(checked))], itertools.repeat(('', '')))
    return [
        (*first, row.name, _strides(row), _channels(row), _terms(row)) for first, row in zip(firsts, checked.losses)
    ]


def _parameters(checked: Checked) -> str:
    return ' / '.join([human(checked.student), ' + '.join(map(human, checked.teachers))])


def _strides(row: LossRow) -> str:
    """Strides of the maps, from fine to coarse; those of two heads at one place are named once."""
    pairs = [pair.strides for pair in row.pairs if pair.strides is not None]
    texts = [str(first) if first == second else f'{first}/{second}' for first, second in pairs]
    return ' '.join(dict.fromkeys(texts)) or '-'


def _channels(row: LossRow) -> str:
    texts = [f'{first} / {second}' for first, second in (pair.channels for pair in row.pairs)]
    return ', '.join(dict.fromkeys(texts)) or '-'


def _terms(row: LossRow) -> str:
    return ', '.join(f'{term or row.name} {_percent(share)}' for term, share in row.terms.items())


def _percent(share: float) -> str:
    percent = 100 * share
    return f'{percent:.0f} %' if abs(percent) >= 99.5 else f'{percent:.2g} %'
