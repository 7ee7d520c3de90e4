"""Step the student alone, the distilled run, and the same with kept records, in turns and by one process."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.cli import CommandParser, add_config_options, load_config, plain_errors, read_config, wide_console
from mmkd_plugin.datasets import ensure_coco_mini
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.study.check import student_alone, trial_config
from mmkd_plugin.study.first_batches import read_batches
from mmkd_plugin.study.one_step import offline, teachers_of
from mmkd_plugin.study.runs import new_runner
from mmkd_plugin.study.table import console_table, markdown_table
from mmkd_plugin.study.turns import SteppedRun, train_with
from mmkd_plugin.teachers import local_file, model_config
from mmkd_plugin.teachers.cache import CachedTeacher

BATCHES = 4
BATCH = 2
"""Images of a batch of COCO-mini's in the place of a config's own."""
WARM_UP = 4
"""Steps before those that are timed, in which every record of the batches is written."""
ALONE, ONLINE, KEPT = 'student alone', 'with its teacher', 'with kept records'
HEADS = ('config', ALONE, ONLINE, KEPT, 'kept / alone', 'of which reading', 'reading / alone')


def on_coco_mini(cfg: Config, side: int) -> Config:
    """The same models on COCO-mini's images, for a detector whose data are not here.

    Args:
        cfg: Of a detector; how many classes it has does not matter, three of them are found.
        side: Height and width to which images are resized.
    """
    cfg = copy.deepcopy(cfg)
    data = load_config('mmkd_plugin::_base_/datasets/coco_mini.py').train_dataloader
    for step in data.dataset.pipeline:
        if step.type == 'Resize':
            step.update(scale=(side, side), keep_ratio=False)
    cfg.train_dataloader = dict(data, batch_size=BATCH)
    return cfg


def with_some_weights(cfg: Config, folder: Path) -> Config:
    """The same run without a download: what has no weights on this machine gets random ones, from a file."""
    cfg = copy.deepcopy(cfg)
    cfg.model = offline(cfg.model)
    for index, teacher in enumerate(teachers_of(cfg.distill)):
        name = teacher.get('teacher_ckpt')
        if name is not None and Path(local_file(name)).is_file():
            continue
        teacher['teacher'] = offline(model_config(teacher['teacher']))
        teacher['teacher_ckpt'] = str(folder / f'teacher{index}.pth')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(teacher['teacher'])
        torch.save(dict(state_dict=model.state_dict()), teacher['teacher_ckpt'])
    return cfg


def variants(cfg: Config, folder: Path) -> dict[str, Config]:
    """The three runs of a config."""
    found = {ALONE: student_alone(cfg), ONLINE: copy.deepcopy(cfg), KEPT: copy.deepcopy(cfg)}
    for name in (ONLINE, KEPT):
        found[name].distill.self_check = False
        found[name].distill.teacher_cache = dict(dir=str(folder / 'cache')) if name == KEPT else False
    return {name: trial_config(config, folder / str(index)) for index, (name, config) in enumerate(found.items())}


def measured(cfg: Config, steps: int) -> tuple[dict[str, float], float]:
    """Median seconds of a step of each run, and of the reading of records within the last."""
    seconds: dict[str, list[float]] = {}
    reading: list[float] = []

    def take(runs: Mapping[str, SteppedRun]) -> None:
        for run in runs.values():
            run.warm_up(WARM_UP)
        spend = reading_of(runs[KEPT])
        for _ in range(steps):
            for name, run in runs.items():
                run.timed_step()
                seconds.setdefault(name, []).append(run.seconds[-1])
            reading.append(sum(spend))
            spend.clear()

    with tempfile.TemporaryDirectory() as folder:
        in_each(variants(with_some_weights(cfg, Path(folder)), Path(folder)), {}, take)
    return {name: statistics.median(found) for name, found in seconds.items()}, statistics.median(reading)


def in_each(
    left: Mapping[str, Config], runs: dict[str, SteppedRun], take: Callable[[Mapping[str, SteppedRun]], None]
) -> None:
    """Call a function within the training loops of all runs."""
    if not left:
        take(runs)
        return
    name, rest = next(iter(left)), dict(list(left.items())[1:])
    runner = new_runner(left[name])

    def loop() -> None:
        runs[name] = SteppedRun(runner, read_batches(runner.train_loop.dataloader, BATCHES).batches)
        in_each(rest, runs, take)

    train_with(runner, loop)


def reading_of(run: SteppedRun) -> list[float]:
    """A list that gets the seconds of each reading from now on."""
    spent: list[float] = []
    algorithm = algorithm_of(run.runner)
    assert algorithm is not None
    for teacher in algorithm.teachers.values():
        assert isinstance(teacher, CachedTeacher) and teacher.misses
        read: Callable[..., Any] = teacher.run

        def timed(*args: Any, read: Callable[..., Any] = read) -> None:
            started = time.perf_counter()
            read(*args)
            spent.append(time.perf_counter() - started)

        setattr(teacher, 'run', timed)  # noqa: B010
    return spent


def main() -> None:
    """Measure and print."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('configs', nargs='+', help='configs with a distill block')
    parser.add_argument('--steps', type=int, default=20, help='of each run; 20 by default')
    parser.add_argument(
        '--coco-mini', type=int, metavar='SIDE', help=f"of COCO-mini's images, {BATCH} a batch, instead of the config's"
    )
    parser.add_argument('--out', type=Path, help='Markdown file for the table')
    add_config_options(parser)
    args = parser.parse_args()
    with plain_errors():
        cells = []
        for name in args.configs:
            args.config = name
            cfg = read_config(args)
            if args.coco_mini:
                ensure_coco_mini('data/coco_mini')
                cfg = on_coco_mini(cfg, args.coco_mini)
            cfg.log_level = 'WARNING'
            found, reading = measured(cfg, args.steps)
            alone = found[ALONE]
            times = [f'{1000 * found[run]:.0f} ms' for run in (ALONE, ONLINE, KEPT)]
            shares = [f'{found[KEPT] / alone:.2f}', f'{1000 * reading:.1f} ms', f'{reading / alone:.3f}']
            cells.append((Path(name).stem, *times, *shares))
        wide_console().print(console_table('medians of a step, in turns', cells, HEADS))
        if args.out:
            args.out.write_text(markdown_table(cells, HEADS))


if __name__ == '__main__':
    main()
