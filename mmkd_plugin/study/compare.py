"""Compare a student alone with distilled ones: same seeds, same schedule, one table and one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console

from mmkd_plugin.algorithms.teacher import local_file, model_config
from mmkd_plugin.study.picture import detection_picture, load_detector
from mmkd_plugin.study.runs import Outcome, prepared, progress_bar, seconds_of, test_once, train_once
from mmkd_plugin.study.table import console_table, markdown_table, rows

STUDENT = 'student alone'


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        student: Config of the student alone.
        distilled: Configs with a distill block, by the name shown; teacher and weights are the first one's.
        seeds: Each model is trained once per seed.
        work_dir: Folder of all runs; what is finished there is not done again.
        options: Overrides for every config, in the form of ``--cfg-options``.
    """

    student: str
    distilled: dict[str, str]
    seeds: Sequence[int]
    work_dir: Path
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def compare(comparison: Comparison, console: Console) -> list[list[Outcome]]:
    """Run everything that is not done yet and print the table.

    Args:
        comparison: What to compare.
        console: Where the table goes.

    Returns:
        The outcomes by model and seed: teacher, student alone, then each distilled student.
    """
    folder = comparison.work_dir
    first = _read(next(iter(comparison.distilled.values())), comparison.options)
    teacher_file = local_file(first.distill.teacher_ckpt)
    groups = []
    with progress_bar() as progress:
        teacher_cfg = teacher_config(first)
        teacher = test_once('teacher', teacher_cfg, teacher_file, folder / 'teacher')
        seconds = seconds_of(teacher_cfg, folder / 'teacher_time', progress)
        groups.append([dataclasses.replace(teacher, seconds_per_iteration=seconds)])
        for name, config in {STUDENT: comparison.student, **comparison.distilled}.items():
            outcomes = []
            for seed in comparison.seeds:
                run_dir = folder / name.replace(' ', '_') / f'seed{seed}'
                outcomes.append(train_once(name, config, seed, run_dir, progress, comparison.options))
            groups.append(outcomes)
    cells = rows(groups, baseline=STUDENT)
    console.print(console_table('COCO metrics in points; ± is the deviation over seeds', cells))
    (folder / 'table.md').write_text(markdown_table(rows(groups, baseline=STUDENT, relative=True)))
    console.print(f'The table as Markdown: {folder / "table.md"}')
    return groups


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
    models = []
    for outcomes in groups:
        cfg = teacher_config(first) if outcomes is groups[0] else student
        points = 100 * outcomes[0].metrics['coco/bbox_mAP']
        models.append((f'{outcomes[0].name}, {points:.1f} mAP', load_detector(cfg, outcomes[0].checkpoint)))
    out = detection_picture(student, models, comparison.work_dir / 'detections.png')
    console.print(f'Detections side by side: {out}')
    return out


def teacher_config(distilled: Config) -> Config:
    """The distilled config with the teacher in the student's place and without the block."""
    cfg = Config(dict(distilled.to_dict()))
    cfg.model = model_config(cfg.pop('distill').teacher)
    cfg.pop('runner_type', None)
    return cfg


def _read(config: str, options: dict[str, Any]) -> Config:
    return prepared(config, 0, Path(), options)
