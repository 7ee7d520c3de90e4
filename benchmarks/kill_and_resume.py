"""Kill a distilled run at random moments and see whether it goes on from its last step, or from the one before.

A run on COCO-mini saves a checkpoint after every step and keeps one. Each trial kills it with SIGKILL at a moment drawn
from a seed: while it starts, between its steps, or while a checkpoint is written; then ``resume=True`` has to take it
to the next step. The trials are copies of one process that has done all imports, so that one takes a few seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable
from unittest import mock

import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from rich.progress import track
from rich.table import Table

from benchmarks.catalogue import CONFIGS
from mmkd_plugin.cli import build_runner, plain_errors, wide_console
from mmkd_plugin.datasets import ensure_coco_mini
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.files import UNFINISHED

START, STEPS, WRITE = 'starting', 'between steps', 'writing a checkpoint'
MOMENTS = (START, STEPS, WRITE, WRITE)
"""The moments aimed at take turns."""
BALLAST = 2**25
"""Bytes that each checkpoint holds in addition, so that writing it takes a while."""
LIMIT = 300.0
"""Seconds that one run may take."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of one kill.

    Attributes:
        moment: What the run was doing.
        saved: The last step whose checkpoint was finished for certain.
        resumed: The step that the next run began with, -1 where it did not get that far.
        words: Why the next run failed; empty where it did not.
    """

    moment: str
    saved: int
    resumed: int
    words: str = ''

    @property
    def good(self) -> bool:
        """Whether nothing was lost but the step that was killed."""
        return not self.words and self.resumed >= self.saved


class _Diary(Hook):
    """Writes down where a run begins, and each step that it has saved; makes checkpoints as large as real ones."""

    # Behind the checkpoint hook.
    priority = 'LOWEST'

    def __init__(self, path: Path) -> None:
        self.path = path

    def before_train(self, runner: Any) -> None:
        self._add(runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        self._add(runner.iter + 1)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['ballast'] = torch.zeros(BALLAST, dtype=torch.uint8)

    def _add(self, step: int) -> None:
        with self.path.open('a') as opened:
            opened.write(f'{step}\n')


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a run is here: seconds until its first step, of a step with its checkpoint, and of a file's write."""

    start: float
    step: float
    write: float


class Child:
    """A copy of this process that trains.

    Args:
        folder: Its work folder.
        diary: Gets the steps that it has saved.
        last: The step to end with.
        resume: Whether it goes on from what the folder holds.
    """

    def __init__(self, folder: Path, diary: Path, last: int, resume: bool) -> None:
        self.folder, self.diary = folder, diary
        self.log = Path(f'{diary}.log')
        self.status: int | None = None
        self.process = os.fork()
        if self.process == 0:
            _train(folder, diary, self.log, last, resume)

    def steps(self) -> list[int]:
        """Where it began, and what it has saved since."""
        # The last line may be half written.
        return [int(line) for line in self.diary.read_text().split('\n')[:-1]] if self.diary.exists() else []

    def writes(self) -> bool:
        """Whether a file is half written."""
        return any(name.endswith(UNFINISHED) for name in os.listdir(self.folder))

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        if self.status is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            self.status = status if process else None
        return self.status is None

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for something, or for the end.

        Raises:
            DistillError: If it takes too long.
        """
        deadline = time.monotonic() + LIMIT
        while self.runs() and not until():
            if time.monotonic() > deadline:
                self.kill()
                raise DistillError(f'A run took longer than {LIMIT:.0f} seconds; try on a machine that does less.')
            time.sleep(0.0005)

    def kill(self) -> None:
        """End it as a machine that fails does."""
        if self.runs():
            os.kill(self.process, signal.SIGKILL)
            self.status = os.waitpid(self.process, 0)[1]


def _train(folder: Path, diary: Path, log: Path, last: int, resume: bool) -> None:
    """Train in a copy of this process, which ends here."""
    status = 1
    with log.open('w') as opened:
        os.dup2(opened.fileno(), 1)
        os.dup2(opened.fileno(), 2)
    try:
        cfg = Config.fromfile(CONFIGS / 'coco_mini/fgd_retina_r34_to_r18.py')
        cfg.merge_from_dict(dict(train_cfg=dict(max_iters=last), train_dataloader=dict(batch_size=2)))
        cfg.update(val_dataloader=None, val_evaluator=None, val_cfg=None)
        cfg.update(work_dir=str(folder), resume=resume, experiment_name=uuid.uuid4().hex)
        cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
        # Asking for the versions of all compilers takes longer than such a run.
        with mock.patch('mmengine.runner.runner.collect_env', dict):
            runner = build_runner(cfg)
        runner.register_hook(_Diary(diary))
        runner.train()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def measure(folder: Path) -> Pace:
    """Train without being killed, and see how long things take.

    Args:
        folder: An empty folder.

    Returns:
        The pace.

    Raises:
        DistillError: If the run fails.
    """
    begun = time.monotonic()
    child = Child(folder, folder.with_suffix('.steps'), last=4, resume=False)
    child.wait(lambda: bool(child.steps()))
    started = time.monotonic()
    child.wait(lambda: len(child.steps()) > 2 and child.writes())
    writing = time.monotonic()
    child.wait(lambda: not child.writes())
    written = time.monotonic()
    child.wait(lambda: False)
    if child.status != 0:
        raise DistillError(f'The run fails without being killed: {_last_words(child)}')
    return Pace(started - begun, (time.monotonic() - started) / 4, written - writing)


def kill_and_resume(folder: Path, aim: str, pace: Pace, chance: random.Random) -> Trial:
    """Train, kill, and go on.

    Args:
        folder: An empty folder; both runs have it as theirs.
        aim: The moment aimed at.
        pace: How fast a run is.
        chance: Draws the moment.

    Returns:
        What came of it.
    """
    child = Child(folder, folder.with_suffix('.killed'), last=1000, resume=False)
    if aim == START:
        time.sleep(chance.uniform(0, pace.start))
    else:
        first = chance.randint(1, 5)
        child.wait(lambda: len(child.steps()) > first)
        if aim == WRITE:
            child.wait(child.writes)
        time.sleep(chance.uniform(0, pace.write if aim == WRITE else pace.step))
    child.kill()
    steps = child.steps()
    moment = WRITE if child.writes() else STEPS if steps else START
    saved = max(steps, default=0)
    again = Child(folder, folder.with_suffix('.resumed'), last=saved + 2, resume=True)
    again.wait(lambda: False)
    return Trial(moment, saved, min(again.steps(), default=-1), '' if again.status == 0 else _last_words(again))


def _last_words(child: Child) -> str:
    return child.log.read_text().strip().splitlines()[-1][:300]


def trials(times: int, seed: int, pace: Pace, root: Path) -> Iterator[Trial]:
    """Kill runs, each in a folder of its own that is removed when it has gone on.

    Args:
        times: How many.
        seed: Of the moments.
        pace: How fast a run is.
        root: Where the folders are made.

    Yields:
        What came of each.
    """
    chance = random.Random(seed)
    for index in range(times):
        folder = root / str(index)
        folder.mkdir()
        yield kill_and_resume(folder, MOMENTS[index % len(MOMENTS)], pace, chance)
        shutil.rmtree(folder)


def table(done: Sequence[Trial]) -> Table:
    """How many went on, by what they were doing when they were killed."""
    result = Table(title='killed while', title_justify='left')
    for column in ('moment', 'runs', 'went on', 'from the last step noted'):
        result.add_column(column, justify='left' if column == 'moment' else 'right')
    for moment in (START, STEPS, WRITE):
        of_moment = [trial for trial in done if trial.moment == moment]
        good = [trial for trial in of_moment if trial.good]
        behind = sum(trial.resumed == trial.saved for trial in good)
        result.add_row(moment, str(len(of_moment)), str(len(good)), str(behind))
    return result


def main() -> None:
    """Kill and resume as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--times', type=int, default=50, help='how many runs are killed')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')
    torch.set_num_threads(1)
    console = wide_console()
    with plain_errors():
        if not hasattr(os, 'fork'):
            raise DistillError('Each trial is a copy of this process, which needs Linux or macOS; run it there.')
        ensure_coco_mini('data/coco_mini')
        # What a run imports is imported once, here.
        Config.fromfile(CONFIGS / 'coco_mini/fgd_retina_r34_to_r18.py')
        init_default_scope('mmdet')
        register_all_modules()
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            (root / 'pace').mkdir()
            pace = measure(root / 'pace')
            running = trials(args.times, args.seed, pace, root)
            done = list(track(running, 'killed and resumed', total=args.times, console=console))
    console.print(table(done))
    for trial in done:
        if not trial.good:
            console.print(f'lost: {trial}')
    good = sum(trial.good for trial in done)
    console.print(f'{good} of {len(done)} runs went on without loss.')
    raise SystemExit(0 if good == len(done) else 1)


if __name__ == '__main__':
    main()
