"""The figures of a fuzz, on the console and as a page."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from benchmarks.fuzz.trial import OUTCOMES, RUNS, SENTENCE, Verdict
from mmkd_plugin.study.table import console_table, markdown_table

HEADS = ('kind', *OUTCOMES)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One draw.

    Attributes:
        seed: What it was drawn with.
        kind: Group of inputs.
        told: What was special.
        verdict: What became of it.
    """

    seed: int
    kind: str
    told: str
    verdict: Verdict


def page(found: Sequence[Drawn], seed: int) -> str:
    """The page.

    Args:
        found: All draws.
        seed: Of the first one.

    Returns:
        Markdown.
    """
    counted = Counter(item.verdict.outcome for item in found)
    figures = ', '.join(f'{counted[outcome]} {outcome}' for outcome in OUTCOMES)
    rows = markdown_table(_cells(found), HEADS)
    bad = [item for item in found if item.verdict.outcome not in (RUNS, SENTENCE)]
    listed = '\n'.join(f'- {told(item)}' for item in bad)
    return f"""# What becomes of mistakes

{len(found)} draws: {figures}.

Written by `make fuzz`. Each draw is what a user writes and types for a small pair (RetinaNet, Faster R-CNN or PSPNet
on generated images), with something random about it: a right block of random methods and settings, a slip of the hand
in a key or a name, a value of another kind, files of weights and data that are broken, runs that are set up otherwise,
and other commands. The tool is then called as a user calls it.

- It *runs* if its command ends well, its losses are finite and, where it trains, the terms of its block are logged.
- *One sentence* is a line beginning with `error:`, without a traceback.
- It is *silent* if a mistake was neither refused nor warned of, a setting had no effect on the algorithm that the block
  stands for, a run distilled nothing, a loss was not finite, or code in a file was run.
- Anything else, a command that hangs among it, counts as a *traceback*.

The draws have the seeds from {seed} on; `python -m benchmarks.fuzz --seed SEED --draws 1` repeats one.

{rows}
{f'{chr(10)}What failed:{chr(10)}{chr(10)}{listed}{chr(10)}' if bad else ''}"""


def told(item: Drawn) -> str:
    """A draw in one line."""
    return f'{item.seed}, {item.kind}, {item.told}: {item.verdict.outcome}, {item.verdict.why}'


def table(found: Sequence[Drawn]) -> Table:
    """The figures for the console."""
    return console_table('what becomes of mistakes', _cells(found), HEADS)


def _cells(found: Sequence[Drawn]) -> list[tuple[str, ...]]:
    kinds = sorted({item.kind for item in found})
    counted = Counter((item.kind, item.verdict.outcome) for item in found)
    return [(kind, *(str(counted[kind, outcome]) for outcome in OUTCOMES)) for kind in kinds]
