"""Compare a student alone with distilled ones: same seeds, same schedule, one table and one picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console

from mmkd_plugin.block.block import DistillBlock, TeacherBlock
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.study.check import student_alone
from mmkd_plugin.study.cost import Cost, costs
from mmkd_plugin.study.pictures.canvas import Painter, load_model, side_by_side
from mmkd_plugin.study.pictures.detection import DetectionPainter
from mmkd_plugin.study.pictures.segmentation import SegmentationPainter
from mmkd_plugin.study.pictures.spread import spread_picture
from mmkd_plugin.study.runs import Outcome, prepared, progress_bar, quiet, seconds_each, test_once, told_of
from mmkd_plugin.study.table import columns, console_tables, markdown_table, rows
from mmkd_plugin.study.tasks import DETECTION, task_of
from mmkd_plugin.study.trainings import Training, require_instruction_sets, train_all
from mmkd_plugin.teachers import local_file, model_config

TEACHER = 'teacher'
STUDENT = 'student alone'
AUTO, WHOLE = ', auto', ', whole'
"""What is added to the name of a row: its weights find themselves; the student's own loss has its full weight."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        student: Config of the student alone.
        distilled: Configs with a distill block, by the name shown; teacher and weights are the first one's.
        seeds: Each model is trained once per seed.
        work_dir: Folder of all runs; what is finished there is not done again.
        options: Overrides for every config, in the form of ``--cfg-options``.
        any_code: Whether finished runs count although this package's code has changed since.
        own_options: Further overrides of some rows, by the name shown.
        jobs: How many trainings run at a time.
        instruction_sets: What the processor is restricted to, in turns: the first for the first seed, and so on. Then
            the deviation over the seeds is also that over machines.
    """

    student: str
    distilled: dict[str, str]
    seeds: Sequence[int]
    work_dir: Path
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    any_code: bool = False
    own_options: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    jobs: int = 1
    instruction_sets: Sequence[str] = ()

    def options_of(self, name: str) -> dict[str, Any]:
        """Overrides for the config of one row."""
        return {**self.options, **self.own_options.get(name, {})}

    def only(self, names: Sequence[str]) -> Comparison:
        """The same with some of its distilled rows.

        Args:
            names: Their names.

        Raises:
            DistillError: If there is no such row.
        """
        for name in names:
            if name not in self.distilled:
                raise DistillError(f'No row is called "{name}": {nearest(name, self.distilled)}')
        own = {name: options for name, options in self.own_options.items() if name in names}
        return dataclasses.replace(self, distilled={name: self.distilled[name] for name in names}, own_options=own)

    def trainings(self) -> list[list[Training]]:
        """What is trained: for the student alone, then for each distilled one, a training for each seed."""
        found = []
        for name, config in {STUDENT: self.student, **self.distilled}.items():
            of_row = []
            for index, seed in enumerate(self.seeds):
                instructions = (
                    self.instruction_sets[index % len(self.instruction_sets)] if self.instruction_sets else ''
                )
                folder = self.work_dir / name.replace(' ', '_') / '_'.join([f'seed{seed}', instructions]).rstrip('_')
                options = self.options_of(name)
                of_row.append(Training(name, config, seed, str(folder), options, self.any_code, instructions))
            found.append(of_row)
        return found


def compare(comparison: Comparison, console: Console) -> list[list[Outcome]]:
    """Run everything that is not done yet and print the table.

    All configs are read before anything is trained.

    Args:
        comparison: What to compare.
        console: Where the table goes.

    Returns:
        The outcomes by model and seed: teacher, student alone, then each distilled student.

    Raises:
        DistillError: If a config does not exist, or a distilled one has no block; if a run fails, naming the run.
    """
    folder = comparison.work_dir
    _require_comparable(comparison)
    first = _read(next(iter(comparison.distilled.values())), comparison.options)
    teacher_file = local_file(str(first_teacher(first).teacher_ckpt))
    teacher_cfg = teacher_config(first)
    configs = {STUDENT: comparison.student, **comparison.distilled}
    with progress_bar() as progress:
        groups = [[test_once(TEACHER, teacher_cfg, teacher_file, folder / TEACHER)]]
        planned = comparison.trainings()
        # Seed by seed, so that a study that is stopped has every row.
        in_turn = [row[index] for index in range(len(comparison.seeds)) for row in planned]
        done = dict(zip(map(id, in_turn), train_all(in_turn, progress, comparison.jobs)))
        groups += [[done[id(training)] for training in row] for row in planned]
        timed = {name: _read(config, comparison.options_of(name)) for name, config in configs.items()}
        seconds = seconds_each({TEACHER: teacher_cfg, **timed}, folder / 'time', progress)
    groups = [
        [dataclasses.replace(outcome, seconds_per_iteration=seconds[outcome.name]) for outcome in group]
        for group in groups
    ]
    used = {TEACHER: teacher_cfg, **{name: _plain(cfg) for name, cfg in timed.items()}}
    with quiet(folder / 'time' / 'console.log'):
        trained = {group[0].name: load_model(used[group[0].name], group[0].checkpoint) for group in groups}
        cost = costs(trained, used[STUDENT])
    task = task_of(groups[0][0].metrics)
    for table in console_tables(task, rows(groups, baseline=STUDENT, costs=cost)):
        console.print(table)
    cells = rows(groups, baseline=STUDENT, relative=True, costs=cost)
    (folder / 'table.md').write_text(markdown_table(cells, columns(task, relative=True)))
    (folder / 'results.json').write_text(_numbers(groups, cost))
    console.print(f'The table as Markdown: {folder / "table.md"}; its numbers for each seed: {folder / "results.json"}')
    console.print(f'Every seed and the spread: {spread_picture(groups, STUDENT, folder / "spread.png")}')
    return groups


def with_auto_weights(comparison: Comparison) -> Comparison:
    """The same comparison with a second row for each distilled config, whose methods find their weights themselves.

    Args:
        comparison: What is compared.

    Raises:
        DistillError: If a config has no distill block.
    """
    distilled, own = {}, dict(comparison.own_options)
    for name, config in comparison.distilled.items():
        options = comparison.options_of(name)
        block = DistillBlock.parse(_read(config, options).get('distill') or {})
        again = f'{name}{AUTO}'
        distilled.update({name: config, again: config})
        weights = {f'distill.methods.{method}.loss_weight': 'auto' for method in block.methods}
        own[again] = {**own.get(name, {}), **weights}
    return dataclasses.replace(comparison, distilled=distilled, own_options=own)


def _require_comparable(comparison: Comparison) -> None:
    """Refuse configs and seeds that make no comparison."""
    if len(set(comparison.seeds)) < len(comparison.seeds):
        raise DistillError(
            f'The seeds {" ".join(map(str, comparison.seeds))} repeat, and equal seeds train equal students; give each '
            'once.'
        )
    require_instruction_sets(comparison.instruction_sets)
    unknown = set(comparison.own_options).difference(comparison.distilled)
    if unknown:
        raise DistillError(f'No row is called "{min(unknown)}": {nearest(min(unknown), comparison.distilled)}')
    _read(comparison.student, comparison.options)
    for name, config in comparison.distilled.items():
        if name in (TEACHER, STUDENT):
            raise DistillError(f'"{name}" is the name of another row; call "{config}" otherwise, as in mine={config}.')
        cfg = _read(config, comparison.options_of(name))
        if cfg.get('distill') is None:
            raise DistillError(
                f'The config "{config}" has no distill block, so there is nothing to compare; inherit a recipe such as '
                '"mmkd_plugin::_base_/fgd/one_stage.py", or give the config that does.'
            )
        with told_of(f'The config "{config}"'):
            DistillBlock.parse(cfg.distill).require_teacher()


def picture(comparison: Comparison, groups: Sequence[Sequence[Outcome]], console: Console) -> Path:
    """Draw the first seed's models side by side on test images.

    Args:
        comparison: What was compared.
        groups: Its outcomes.
        console: Where the path is printed.

    Returns:
        Path of the PNG.
    """
    student = _read(comparison.student, comparison.options)
    first = _read(next(iter(comparison.distilled.values())), comparison.options)
    task = task_of(groups[0][0].metrics)
    models = []
    for outcomes in groups:
        cfg = teacher_config(first) if outcomes is groups[0] else student
        points = 100 * outcomes[0].metrics[task.metrics[task.main]]
        models.append((f'{outcomes[0].name}\n{points:.1f} {task.main}', load_model(cfg, outcomes[0].checkpoint)))
    painter: Callable[[dict], Painter] = DetectionPainter if task is DETECTION else SegmentationPainter
    out = side_by_side(student, models, painter, comparison.work_dir / f'{task.name}.png')
    console.print(f'Predictions side by side: {out}')
    return out


def first_teacher(distilled: Config) -> TeacherBlock:
    """The teacher of a distilled config, the first one where there are several."""
    block = DistillBlock.parse(distilled.distill)
    block.require_teacher()
    return next(iter(block.used_teachers().values()))


def teacher_config(distilled: Config) -> Config:
    """The distilled config with the teacher in the student's place and without the block."""
    cfg = Config(dict(distilled.to_dict()))
    cfg.model = model_config(first_teacher(distilled).teacher)
    return _plain(cfg)


def _plain(cfg: Config) -> Config:
    """The student of a config as the stock tools build it."""
    alone = student_alone(cfg)
    alone.pop('runner_type', None)
    return alone


def _numbers(groups: Sequence[Sequence[Outcome]], cost: Mapping[str, Cost]) -> str:
    """Every number behind a table as JSON, a line for each run; times are multiples of the student's alone."""
    alone = next(group[0] for group in groups if group[0].name == STUDENT)
    lines = [
        json.dumps(
            dict(
                model=outcome.name,
                seed=outcome.seed,
                metrics=outcome.metrics,
                **(dict(instructions=outcome.instructions) if outcome.instructions else {}),
                time_per_iteration=round(outcome.seconds_per_iteration / alone.seconds_per_iteration, 3),
                weights_bytes=outcome.checkpoint_bytes,
                parameters=cost[outcome.name].parameters,
                flops=cost[outcome.name].flops,
                time_per_image=round(cost[outcome.name].seconds_per_image / cost[STUDENT].seconds_per_image, 3),
            )
        )
        for group in groups
        for outcome in group
    ]
    return '[\n' + ',\n'.join(lines) + '\n]\n'


def _read(config: str, options: dict[str, Any]) -> Config:
    return prepared(config, 0, Path(), options)
