"""Train a student alone and distilled with five seeds and on three instruction sets: how far may two runs differ?"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare_methods import planned
from benchmarks.measured import RESULTS
from benchmarks.settings_tables import plain_table
from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.datasets import ensure_coco_mini
from mmkd_plugin.study.compare import STUDENT, Comparison
from mmkd_plugin.study.runs import Outcome, progress_bar
from mmkd_plugin.study.tasks import task_of
from mmkd_plugin.study.training_options import INSTRUCTION_SETS
from mmkd_plugin.study.trainings import Training, require_instruction_sets, train_all

ROWS = {'retina': 'fgd', 'faster-rcnn': 'fgd', 'pspnet': 'cwd'}
"""The distilled row of each family."""
SEEDS = (0, 1, 2, 3, 4)
FILE = RESULTS / 'spread' / 'coco_mini.json'


def wanted(comparison: Comparison, sets: Sequence[str]) -> list[Training]:
    """What is trained: every seed, the instruction sets in turns, and the first seed on all of them.

    Args:
        comparison: A student and one distilled row.
        sets: Instruction sets.
    """
    found = {}
    for one in (
        dataclasses.replace(comparison, seeds=SEEDS, instruction_sets=sets),
        *(dataclasses.replace(comparison, seeds=SEEDS[:1], instruction_sets=[name]) for name in sets),
    ):
        for row in one.trainings():
            found.update({training.work_dir: training for training in row})
    return list(found.values())


def numbers(family: str, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What is kept of the runs of a family, one entry for each."""
    main = task_of(outcomes[0].metrics)
    return [
        dict(
            family=family,
            model=outcome.name,
            seed=outcome.seed,
            instructions=outcome.instructions,
            points=round(100 * outcome.metrics[main.metrics[main.main]], 2),
        )
        for outcome in outcomes
    ]


def spread_table() -> str:
    """For each model the deviation over seeds, over instruction sets at one seed, and over all runs."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in json.loads(FILE.read_text()):
        groups.setdefault((run['family'], run['model']), []).append(run)
    cells = []
    for (family, model), runs in groups.items():
        first = runs[0]['seed']
        seeds = list({run['seed']: run['points'] for run in reversed(runs)}.values())
        sets = [run['points'] for run in runs if run['seed'] == first]
        every = [run['points'] for run in runs]
        row = [f'{statistics.mean(every):.1f}', str(len(every))]
        row += [f'{statistics.stdev(values):.1f} ({len(values)})' for values in (seeds, sets)]
        cells.append((family, model, *row, f'{statistics.stdev(every):.1f}', f'{min(every):.1f} to {max(every):.1f}'))
    heads = ('family', 'model', 'mean', 'runs', 'over seeds', 'over instruction sets', 'over all', 'range')
    return plain_table(cells, heads)


def main() -> None:
    """Train what is missing and write the numbers."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--families', nargs='+', choices=list(ROWS), default=list(ROWS), help='all by default')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time; 1 by default')
    parser.add_argument('--sets', nargs='+', default=list(INSTRUCTION_SETS), help='instruction sets; all by default')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/methods'), help='that of compare_methods')
    parser.add_argument('--any-code', action='store_true', help='keep finished runs although the code changed since')
    parser.add_argument('--out', type=Path, default=FILE)
    args = parser.parse_args()
    with plain_errors():
        console = wide_console()
        require_instruction_sets(args.sets)
        ensure_coco_mini('data/coco_mini')
        found = []
        for family in args.families:
            (comparison,) = planned([family], [0], args.work_dir, any_code=args.any_code)
            trainings = wanted(comparison.only([ROWS[family]]), args.sets)
            with progress_bar() as progress:
                outcomes = train_all(trainings, progress, args.jobs)
            outcomes.sort(key=lambda outcome: (outcome.name != STUDENT, outcome.seed))
            found += numbers(family, outcomes)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text('[\n' + ',\n'.join(map(json.dumps, found)) + '\n]\n')
        console.print(f'The numbers: {args.out}; "make pages" writes the table.')


if __name__ == '__main__':
    main()
