"""Hook that keeps checkpoints and averaged models plain students."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.distillers.entries import LEVEL
from mmkd_plugin.distillers.schedule import Progress, WeightSchedule
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import HOOKS
from mmkd_plugin.utilities.text import without_prefix

STATE_KEY = 'distill_state'
"""Where a checkpoint holds connectors and learned losses, beside ``state_dict``."""


def algorithm_of(runner: Runner) -> DistillAlgorithm | None:
    """The distillation algorithm that a runner trains, without its wrapper."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model if isinstance(model, DistillAlgorithm) else None


@HOOKS.register_module()
class DistillStateHook(Hook):
    """Save what resuming needs beside the student's weights, average the student alone, and drive the schedules.

    ``state_dict`` of a checkpoint is the student's; connectors and learned losses lie under ``distill_state`` of the
    same file. An ``EMAHook`` is pointed at the student, so that its copy holds neither teacher nor connectors.
    """

    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        """Point averaging hooks at the student; they have just copied the whole algorithm."""
        algorithm = algorithm_of(runner)
        if algorithm is None:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.src_model = algorithm.student
                hook.ema_model = ROOT_MODELS.build(hook.ema_cfg, default_args=dict(model=algorithm.student))

    def before_train(self, runner: Runner) -> None:
        """Refuse schedules in epochs where the loop counts none, and those that begin after the end of the run."""
        algorithm = algorithm_of(runner)
        if algorithm is None:
            return
        counts_epochs = not isinstance(runner.train_loop, IterBasedTrainLoop)
        require_begun(algorithm.distiller.schedules, runner.max_iters, runner.max_epochs, counts_epochs)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Tell schedules how far the run is."""
        algorithm = algorithm_of(runner)
        if algorithm is not None:
            algorithm.distiller.progress = Progress(runner.iter, runner.epoch, runner.max_iters, runner.max_epochs)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the extra state beside the student's."""
        algorithm = algorithm_of(runner)
        if algorithm is not None:
            checkpoint[STATE_KEY] = {key: value.cpu() for key, value in algorithm.extra_state().items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the extra state when training goes on from a checkpoint."""
        algorithm = algorithm_of(runner)
        if algorithm is None or not runner._resume:
            return
        if STATE_KEY not in checkpoint:
            print_log(
                'The checkpoint was not made by a distilled run: connectors and learned losses start anew.',
                logger='current',
                level=logging.WARNING,
            )
            return
        try:
            algorithm.load_extra_state(checkpoint[STATE_KEY])
        except RuntimeError as error:
            raise DistillError(
                'The checkpoint belongs to another distill block, so its connectors and losses do not fit; resume with '
                f'the block it was trained with, or use load_from for the student alone '
                f'({str(error).splitlines()[1].strip()}).'
            ) from error


def require_begun(
    schedules: dict[str, WeightSchedule], iterations: int | None, epochs: int | None, counts_epochs: bool
) -> None:
    """Refuse schedules that a run never comes to.

    Args:
        schedules: By loss, or by ``'<loss>.<term>'``.
        iterations: Those of the run, None where they are not known.
        epochs: Those of the run, likewise.
        counts_epochs: Whether its loop counts epochs.

    Raises:
        DistillError: If a schedule counts epochs and the loop does not, or begins after the end of the run.
    """
    if not counts_epochs and any(item.by_epoch for item in schedules.values()):
        raise DistillError(
            'A schedule of the distill block counts epochs, but the training loop counts iterations alone; give '
            'its times in iterations, with by_epoch=False.'
        )
    for loss, schedule in schedules.items():
        last, unit = (epochs, 'epoch') if schedule.by_epoch else (iterations, 'iteration')
        if last is not None and schedule.start >= last:
            raise DistillError(
                f'"{_schedule_key(loss)}" starts at {unit} {schedule.start}, but the run has {last} of them, so '
                f'that it never begins; give a start below {last}, or train longer.'
            )


def _schedule_key(loss: str) -> str:
    """Where a user writes the schedule of a loss, or of one term of it, ``'<loss>.<term>'``."""
    name, _, term = loss.partition('.')
    method = without_prefix(name.partition(LEVEL)[0], 'loss_')
    return f'distill.methods.{method}.' + (f'schedules.{term}' if term else 'schedule') + '.start'
