"""Draw mistakes and count what becomes of them: ``python -m benchmarks.fuzz --draws 500``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.fuzz.draws import KINDS
from benchmarks.fuzz.page import Drawn, page, table, told
from benchmarks.fuzz.trial import RUNS, SENTENCE, Ground
from mmkd_plugin.cli import wide_console
from mmkd_plugin.study.runs import progress_bar

SEED = 20231


def main() -> int:
    """Fuzz.

    Returns:
        The exit status: 1 where something was silent or ended in a traceback.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--draws', type=int, default=500, help='how many; 500 by default')
    parser.add_argument('--seed', type=int, default=SEED, help='of the first draw, the next ones follow')
    parser.add_argument('--seconds', type=float, help='end after this time, however many were drawn')
    parser.add_argument('--jobs', type=int, default=1, help='commands that run at the same time')
    parser.add_argument('--kinds', nargs='+', choices=list(KINDS), default=list(KINDS), metavar='KIND')
    parser.add_argument('--folder', type=Path, help='where what failed is kept; a temporary folder by default')
    parser.add_argument('--page', type=Path, help='write the figures to this Markdown file')
    args = parser.parse_args()
    if args.folder is None:
        args.folder = Path(tempfile.mkdtemp(prefix='mmkd_fuzz_'))
    args.folder.mkdir(parents=True, exist_ok=True)
    console = wide_console()
    ground = Ground(args.folder.resolve())
    end = time.monotonic() + (args.seconds or float('inf'))

    def play(seed: int) -> Drawn | None:
        """One draw; nothing where the time is over."""
        if time.monotonic() > end:
            return None
        draw = random.Random(seed)
        case = KINDS[draw.choice(args.kinds)](draw)
        return Drawn(seed, case.kind, case.told, ground.play(case, str(seed), seed))

    found: list[Drawn] = []
    with progress_bar() as progress, ThreadPoolExecutor(args.jobs) as pool:
        task = progress.add_task('draws', total=args.draws)
        for drawn in pool.map(play, range(args.seed, args.seed + args.draws)):
            progress.advance(task)
            if drawn is None:
                continue
            found.append(drawn)
            if drawn.verdict.outcome not in (RUNS, SENTENCE):
                progress.console.print(told(drawn), str(args.folder / str(drawn.seed)), markup=False, soft_wrap=True)
    console.print(table(found))
    if args.page:
        args.page.write_text(page(found, args.seed))
        console.print(f'written: {args.page}')
    counted = Counter(item.verdict.outcome for item in found)
    return 0 if counted[RUNS] + counted[SENTENCE] == len(found) else 1


if __name__ == '__main__':
    sys.exit(main())
