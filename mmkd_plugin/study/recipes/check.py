"""Train whole recipes for one step each, with student and teacher as large as their configs make them."""

from __future__ import annotations

import ast
import dataclasses
import gc
import time
import uuid
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.cli import build_runner, load_config
from mmkd_plugin.compat.unread_block import refuse_misspelt_block
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.one_step import forgotten_run, one_step_config, teachers_of
from mmkd_plugin.study.recipes.watch import LossRow, StepWatch
from mmkd_plugin.study.runs import quiet, told
from mmkd_plugin.teachers.source import local_file
from mmkd_plugin.teachers.weights import RANDOM_WEIGHTS
from mmkd_plugin.utilities.text import without_prefix

ZOO = 'mmkd_plugin::'
"""Begins the names of the configs that are shipped."""

SIZE = 256
"""Side of the images in pixels: two cells at the coarsest usual stride, 128."""

TRIES = 10
"""How many batches a term may take to send a gradient: what compares with the truth may be at rest in one of them."""

_SMALL = ('_base_', 'coco_mini', 'bccd', 'camvid')
"""Folders of bases and of small pairs, which are trained in full elsewhere."""

_PACKAGES = ('mmdet', 'mmseg')


@dataclasses.dataclass
class Checked:
    """What came of one recipe.

    Attributes:
        name: The config.
        fault: Why it does not work, in one sentence; empty where it does.
        student: Parameters of the student.
        teachers: Parameters of each teacher.
        losses: Its distillation losses, the levels of each together.
        remarks: What is worth a look, a sentence each.
        seconds: Time taken.
    """

    name: str
    fault: str = ''
    student: int = 0
    teachers: tuple[int, ...] = ()
    losses: tuple[LossRow, ...] = ()
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0


def shipped_recipes() -> list[str]:
    """Names of the full configs with a ``distill`` block that lie beside the package."""
    folder = Path(local_file(ZOO))
    files = [file for file in sorted(folder.glob('*/*.py')) if file.parent.name not in _SMALL]
    return [f'{ZOO}{file.relative_to(folder).as_posix()}' for file in files if _has_block(file)]


def _has_block(file: Path) -> bool:
    """Whether a shipped config, or one of ours that it builds on, writes a block; to read them all takes long."""
    nodes = [node for node in ast.parse(file.read_text(encoding='utf-8')).body if isinstance(node, ast.Assign)]
    values = {target.id: node.value for node in nodes for target in node.targets if isinstance(target, ast.Name)}
    if 'distill' in values:
        return True
    bases = ast.literal_eval(values['_base_']) if '_base_' in values else []
    names = [bases] if isinstance(bases, str) else bases
    ours = [name for name in names if name.startswith(ZOO) or '::' not in name]
    return any(_has_block(Path(local_file(name)) if name.startswith(ZOO) else file.parent / name) for name in ours)


def check_recipe(name: str, work_dir: Path, size: int = SIZE, whole: bool = False) -> Checked:
    """Train a config on generated images for a step, from random weights and with a random teacher.

    Args:
        name: Path or zoo name of the config.
        work_dir: Folder of the run; its output is in ``console.log``.
        size: Side of the images in pixels.
        whole: Whether an error is raised as it is, not told in a sentence.

    Returns:
        What came of it.
    """
    started = time.monotonic()
    checked = Checked(name)
    try:
        _train(checked, work_dir, size)
    except Exception as error:
        if whole:
            raise
        checked.fault = told(error)
    # The models of the next recipe need the room of these.
    gc.collect()
    checked.seconds = time.monotonic() - started
    return checked


def _train(checked: Checked, work_dir: Path, size: int) -> None:
    cfg = load_config(checked.name)
    block = _block_of(cfg)
    for teacher in teachers_of(cfg.distill):
        teacher['teacher_ckpt'] = RANDOM_WEIGHTS
    # The watch is a stricter look at the step.
    cfg.distill.self_check = False
    work_dir.mkdir(parents=True, exist_ok=True)
    with quiet(work_dir / 'console.log'), forgotten_run():
        run = one_step_config(cfg, cfg.default_scope, size, work_dir)
        run.train_cfg.max_iters = TRIES
        run.train_dataloader.dataset.length = TRIES * run.train_dataloader.batch_size
        run.experiment_name = uuid.uuid4().hex
        watch = StepWatch(cfg.get('train_cfg') or {})
        runner = build_runner(run)
        runner.register_hook(watch)
        runner.train()
        checked.student, checked.teachers = watch.student, watch.teachers
    checked.losses, checked.remarks = watch.rows(), tuple(watch.remarks)
    idle = [name for name in block.methods if not any(f'{row.name}_'.startswith(f'{name}_') for row in checked.losses)]
    if idle:
        raise DistillError(f'The method "{idle[0]}" has a weight, but gave no term; look at its settings.')


def _block_of(cfg: Config) -> DistillBlock:
    """The checked block of a config.

    Raises:
        DistillError: If it has none that distils, or is of no package for which images are generated.
    """
    refuse_misspelt_block(cfg)
    if cfg.get('distill') is None:
        raise DistillError('The config has no distill block, so there is nothing to check; name one that distils.')
    if cfg.get('default_scope') not in _PACKAGES:
        raise DistillError(
            f'The default_scope of the config is {cfg.get("default_scope")!r}, for which no images can be generated; '
            'set it to "mmdet" or "mmseg".'
        )
    init_default_scope(cfg.default_scope)
    block = DistillBlock.parse(cfg.distill)
    if not block.methods:
        raise DistillError('Every method of the distill block has weight 0; give one a weight.')
    block.require_teacher()
    return block


def short_name(name: str) -> str:
    """A config's name without what all that are shipped begin with."""
    return without_prefix(name, ZOO)
