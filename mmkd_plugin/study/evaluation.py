"""Evaluate a model on the validation data of a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.runs import new_runner
from mmkd_plugin.study.tasks import as_fractions, task_of

_TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks', 'auto_scale_lr')

_WRITES = ('outfile_prefix', 'output_dir')
"""Where metrics of MMDetection and MMSegmentation write predictions to."""


class Metric(NamedTuple):
    """How good a model is.

    Attributes:
        role: Which model.
        name: Of the metric.
        value: As a fraction of 1.
    """

    role: str
    name: str
    value: float

    @property
    def text(self) -> str:
        """Name and value in points."""
        return f'{self.name} {100 * self.value:.1f}'


def evaluated(
    role: str, cfg: Config, folder: Path, model: nn.Module | None = None, checkpoint: str | None = None
) -> Metric:
    """Evaluate a model.

    Args:
        role: What it is called.
        cfg: Gives the data, and the model where a checkpoint is evaluated; it holds no distillation.
        folder: For what the run prints.
        model: A built model with its weights.
        checkpoint: The weights for the model of the config.

    Returns:
        Its main metric.

    Raises:
        DistillError: If the checkpoint does not fill the model, or there is no data.
    """
    testing = evaluation_config(cfg)
    testing.work_dir = str(folder)
    testing.load_from = checkpoint
    runner = new_runner(testing)
    if model is not None:
        runner.model = model
    return main_metric(role, as_fractions(runner.test()))


def evaluation_config(cfg: Config) -> Config:
    """The config of a test on the validation data, or on the test data where there is no other."""
    split = require_evaluation(cfg)
    testing = copy.deepcopy(cfg)
    for key in _TRAINING:
        testing.pop(key, None)
    testing.test_dataloader = testing[f'{split}_dataloader']
    testing.test_evaluator = testing[f'{split}_evaluator']
    testing.test_cfg = dict(type='TestLoop')
    evaluators = testing.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        for key in _WRITES:
            evaluator.pop(key, None)
    for part in ('dataloader', 'cfg', 'evaluator'):
        testing.pop(f'val_{part}', None)
    testing.visualizer = None
    testing.launcher = 'none'
    testing.resume = False
    return testing


def require_evaluation(cfg: Config) -> str:
    """Which data of a config models are evaluated on: ``'val'``, or ``'test'`` where there is no other.

    Raises:
        DistillError: If there is none.
    """
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None and cfg.get(f'{split}_evaluator') is not None:
            return split
    raise DistillError(
        'The config has no validation data to evaluate the teacher on; add val_dataloader and val_evaluator, or leave '
        '--evaluate-teacher out.'
    )


def main_metric(role: str, metrics: Mapping[str, float]) -> Metric:
    """The metric that models are compared by: mAP or mIoU where there is one, the first otherwise.

    Args:
        role: Which model.
        metrics: What its evaluator gave, as fractions of 1.

    Raises:
        DistillError: If it gave nothing.
    """
    if not metrics:
        raise DistillError('The val_evaluator gives no metric; set it to CocoMetric, VOCMetric or IoUMetric.')
    try:
        task = task_of(metrics)
    except DistillError:
        name = next(iter(metrics))
        return Metric(role, name, metrics[name])
    return Metric(role, task.main, metrics[task.metrics[task.main]])
