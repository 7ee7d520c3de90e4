"""Try a config on its own data before it is trained: does it work, what does it cost, how long will it take."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.engine.inspection import StepReport, inspect_step
from mmkd_plugin.engine.preflight import class_difference, require_annotations
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.check_warnings import (
    data_warnings,
    metric_warnings,
    normalisation_notes,
    other_classes,
)
from mmkd_plugin.study.evaluation import Metric, evaluated, require_evaluation
from mmkd_plugin.study.first_batches import FirstBatches, KeptBatches, Truth, read_batches, truth_of
from mmkd_plugin.study.runs import new_runner, sent_to
from mmkd_plugin.study.turns import StepCost, SteppedRun, planned, take_turns, train_with

Say = Callable[[str], None]


@dataclasses.dataclass
class Check:
    """What was found.

    Attributes:
        models: What each model is, by its role.
        images: Size of the training set.
        batch_size: Images of a batch.
        per_epoch: Batches of an epoch.
        workers: Processes that load data.
        data: The batches that were read.
        truth: What their images are labelled with.
        iterations: Of the whole run.
        epochs: Of the whole run, None where it counts iterations alone.
        device: Where the steps were taken.
        steps: How many were timed.
        report: The self-check of the first step, None where nothing is distilled.
        distilled: Cost of a distilled step, None where nothing is distilled.
        alone: Cost of a step of the student alone, None where there was too little memory for both.
        metrics: Of the teachers and the student on the validation data, where they were asked for.
        warnings: What is to be mended, a sentence each.
        notes: What is to be known, a sentence each.
    """

    models: dict[str, str]
    images: int
    batch_size: int
    per_epoch: int
    workers: int
    data: FirstBatches
    truth: Truth
    iterations: int = 0
    epochs: int | None = None
    device: str = 'cpu'
    steps: int = 0
    report: StepReport | None = None
    distilled: StepCost | None = None
    alone: StepCost | None = None
    metrics: list[Metric] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def check(
    cfg: Config, steps: int = 5, evaluate: bool = False, student: str | None = None, say: Say = lambda line: None
) -> Check:
    """Take the first steps of a training in a folder that is removed behind them.

    Args:
        cfg: The config, with a distill block or with a ``DistillAlgorithm`` as its model.
        steps: How many steps are timed, of the distilled run and of the student alone.
        evaluate: Whether the teachers are evaluated on the validation data.
        student: Checkpoint of the student that they are compared with; by default what the config loads.
        say: Told what is done, since some of it takes time.

    Returns:
        What was found.

    Raises:
        DistillError: If the config cannot be trained. A step that is not finite is kept in the folder, as its sentence
            says; the folder then stays.
    """
    require_training(cfg)
    if evaluate:
        require_evaluation(cfg)
    if student and '://' not in student and not Path(student).is_file():
        raise DistillError(f'The checkpoint "{student}" of the student does not exist; give the path of a file.')
    folder = Path(tempfile.mkdtemp(prefix='mmkd_check_'))
    try:
        with sent_to(io.StringIO()):
            trial = _Trial(cfg, folder, steps, say)
            trial.run()
            if evaluate:
                trial.evaluate(student)
        return trial.found
    finally:
        _close_logs(folder)
        if not any(folder.rglob('fault_iter_*')):
            shutil.rmtree(folder, ignore_errors=True)


def require_training(cfg: Config) -> None:
    """Refuse a config that trains nothing, or without a teacher.

    Raises:
        DistillError: Saying what it lacks.
    """
    if cfg.get('distill') is None and not _is_algorithm(cfg):
        raise DistillError(
            'The config has no distill block, so there is nothing to check; inherit a recipe such as '
            '"mmkd_plugin::_base_/fgd/one_stage.py", or train it as it is.'
        )
    missing = next((key for key in ('train_dataloader', 'train_cfg', 'optim_wrapper') if cfg.get(key) is None), None)
    if missing:
        raise DistillError(
            f'The config has no {missing}, so it trains nothing; add it, or give the config that trains.'
        )


def student_alone(cfg: Config) -> Config:
    """The config without its distillation."""
    alone = copy.deepcopy(cfg)
    alone.pop('distill', None)
    if _is_algorithm(alone):
        alone.model = alone.model['architecture']
    return alone


def trial_config(cfg: Config, folder: Path) -> Config:
    """The config of a run that begins as it does, and leaves nothing behind but what lies in the folder."""
    trial = copy.deepcopy(cfg)
    trial.work_dir = str(folder)
    trial.launcher = 'none'
    trial.resume = False
    trial.visualizer = None
    trial.default_hooks = {**(cfg.get('default_hooks') or {}), 'checkpoint': None}
    for split in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            trial.pop(f'{split}_{part}', None)
    return trial


class _Trial:
    """The runs of a check."""

    found: Check

    def __init__(self, cfg: Config, folder: Path, steps: int, say: Say) -> None:
        self.cfg, self.folder, self.steps, self.say = cfg, folder, steps, say

    def run(self) -> None:
        """Build, read, and take the steps."""
        self.say('Building the models ...')
        runner = _built(self.cfg, self.folder / 'distilled')
        loader = self._loader(runner)
        accumulated = int(self.cfg.optim_wrapper.get('accumulative_counts', 1))
        before, timed = planned(self.steps, accumulated, 10**9)
        self.say('Reading the first batches ...')
        data = read_batches(loader, before + timed)
        kept: Any = KeptBatches(loader, data.batches)
        runner._train_dataloader = kept
        add = getattr(runner, 'add_distillation', None)
        if add is not None:
            add()
        algorithm = algorithm_of(runner)
        loop = runner.train_loop
        by_epoch = hasattr(loop, 'run_epoch')
        before, self.timed = planned(self.steps, accumulated, loop.max_iters)
        self.before = before
        student = algorithm.student if algorithm is not None else runner.model
        self.runner, self.kept, self.data = runner, kept, data
        truth = truth_of(data.batches, getattr(getattr(student, 'decode_head', None), 'ignore_index', 255))
        self.found = Check(
            models=_models(student, algorithm),
            images=len(loader.dataset),
            batch_size=int(getattr(loader, 'batch_size', None) or self.cfg.train_dataloader.get('batch_size', 1)),
            per_epoch=len(loader),
            workers=int(loader.num_workers),
            data=data,
            truth=truth,
            iterations=loop.max_iters,
            epochs=loop.max_epochs if by_epoch else None,
            device=str(next(student.parameters()).device),
            steps=self.timed,
        )
        self.found.warnings += data_warnings(truth)
        if algorithm is None:
            self.found.warnings.append(
                'Distillation is off, since every method of the distill block has weight 0; raise a loss_weight.'
            )
            train_with(runner, self._take_alone_steps)
            return
        self._compare_teachers(algorithm, getattr(loader.dataset, 'metainfo', None))
        train_with(runner, self._take_steps)
        if self.found.report is not None:
            # Where the block's own self-check is on, they have ended the run by now.
            self.found.warnings += self.found.report.faults

    def evaluate(self, student: str | None) -> None:
        """Evaluate the teachers, and the student where it has weights."""
        found, algorithm = self.found, algorithm_of(self.runner)
        if algorithm is None:
            return
        meta = getattr(self.kept.dataset, 'metainfo', None)
        cfg = student_alone(self.cfg)
        for name, teacher in algorithm.teachers.items():
            role = _role(name, len(algorithm.teachers))
            if class_difference(meta, teacher.meta.get('dataset_meta', teacher.meta)):
                found.notes.append(f'The {role} is not evaluated, since its classes are others than those of the data.')
                continue
            self.say(f'Evaluating the {role} ...')
            try:
                found.metrics.append(evaluated(role, cfg, self.folder / 'evaluation', model=teacher.model))
            except DistillError:
                raise
            except Exception as error:  # the head of a foreign model may give what no metric of this data can read
                found.warnings.append(
                    f'The {role} cannot be evaluated on this data ({type(error).__name__}: '
                    f'{(str(error).splitlines() or ["no reason given"])[0].rstrip(".")}); check that its config and '
                    'classes belong to this data.'
                )
        checkpoint = student or self.cfg.get('load_from')
        if checkpoint and found.metrics:
            self.say('Evaluating the student ...')
            try:
                found.metrics.append(evaluated('student', cfg, self.folder / 'evaluation', checkpoint=checkpoint))
            except DistillError as error:
                if student:
                    raise
                found.notes.append(f'The student is not evaluated: {error}')
        found.warnings += metric_warnings(found.metrics)

    def _loader(self, runner: Runner) -> Any:
        """The loader of the training data, as the loops of MMEngine build it."""
        require_annotations(self.cfg.train_dataloader, 'training')
        per_rank = runner._randomness_cfg.get('diff_rank_seed', False)
        return runner.build_dataloader(self.cfg.train_dataloader, seed=runner.seed, diff_rank_seed=per_rank)

    def _compare_teachers(self, algorithm: DistillAlgorithm, meta: dict | None) -> None:
        """Say where a teacher differs from the student in classes or normalisation."""
        for name, teacher in algorithm.teachers.items():
            role = _role(name, len(algorithm.teachers))
            difference = class_difference(meta, teacher.meta.get('dataset_meta', teacher.meta))
            if difference:
                self.found.warnings.append(other_classes(role, difference))
            warnings, notes = normalisation_notes(
                role, algorithm.data_preprocessor, getattr(teacher.model, 'data_preprocessor', None)
            )
            self.found.warnings += warnings
            self.found.notes += notes

    def _take_steps(self) -> None:
        """Distilled steps, and between them those of the student alone."""
        self.say(f'Taking {self.before} + {self.timed} steps, distilled and alone in turns ...')
        algorithm = algorithm_of(self.runner)
        assert algorithm is not None
        distilled = SteppedRun(self.runner, self.data.batches)

        def observe(algorithm: DistillAlgorithm, losses: dict) -> None:
            if self.found.report is None:
                self.found.report = inspect_step(algorithm, losses)

        # Behind the hook's own look, which stops the run on a fault.
        algorithm.step_observers.append(observe)
        distilled.warm_up(self.before)
        if not self._fits(distilled):
            # Only here, where no traceback holds it any more, is the memory free again.
            gc.collect()
            torch.cuda.empty_cache()
            self.found.notes.append(
                'The student alone was not measured, since the memory of the GPU does not hold both runs at a time.'
            )
            while len(distilled.seconds) < self.timed:
                distilled.timed_step()
        algorithm.step_observers.remove(observe)
        self.found.distilled = distilled.cost()

    def _fits(self, distilled: SteppedRun) -> bool:
        """Take the steps in turns; False where the memory of a GPU is too small for two runs."""
        try:
            self._take_alone_steps(distilled)
        except torch.cuda.OutOfMemoryError:
            return False
        return True

    def _take_alone_steps(self, distilled: SteppedRun | None = None) -> None:
        """Steps of the student alone, in turns with another run where there is one."""
        if distilled is None:
            self._in_turns(self.runner, None)
            return
        runner = _built(student_alone(self.cfg), self.folder / 'alone')
        runner._train_dataloader = self.kept
        train_with(runner, lambda: self._in_turns(runner, distilled))

    def _in_turns(self, runner: Runner, distilled: SteppedRun | None) -> None:
        alone = SteppedRun(runner, self.data.batches)
        alone.warm_up(self.before)
        take_turns([run for run in (distilled, alone) if run is not None], self.timed)
        self.found.alone = alone.cost()


def _built(cfg: Config, folder: Path) -> Runner:
    runner = new_runner(trial_config(cfg, folder))
    runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, CheckpointHook)]
    return runner


def _is_algorithm(cfg: Config) -> bool:
    return str((cfg.get('model') or {}).get('type')).split('.')[-1] == DistillAlgorithm.__name__


def _models(student: nn.Module, algorithm: DistillAlgorithm | None) -> dict[str, str]:
    """What each model is, by its role."""
    found = {'student': _described(student)}
    teachers = algorithm.teachers if algorithm is not None else {}
    found.update({_role(name, len(teachers)): _described(item.model) for name, item in teachers.items()})
    return found


def _role(name: str, teachers: int) -> str:
    return 'teacher' if teachers == 1 else f'teacher "{name}"'


def _described(model: nn.Module) -> str:
    """Type and size of a model."""
    backbone = getattr(model, 'backbone', None)
    depth = getattr(backbone, 'depth', None)
    name = type(model).__name__
    if backbone is not None:
        name += f' on {type(backbone).__name__}' + (f'-{depth}' if isinstance(depth, int) else '')
    return f'{name}, {sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M parameters'


def _close_logs(folder: Path) -> None:
    """Close the log files of the trial, which loggers hold open."""
    for logger in MMLogger._instance_dict.values():
        for handler in list(logger.handlers):
            if folder in Path(getattr(handler, 'baseFilename', '')).parents:
                logger.removeHandler(handler)
                handler.close()
