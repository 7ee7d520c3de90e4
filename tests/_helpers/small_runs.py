"""Runs of a few milliseconds under the plugin's runner, with a score after every step."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from _helpers.checkpoints import Line, Numbers
from mmkd_plugin.engine import DistillRunner

SCORES = (0.2, 0.5, 0.1, 0.4, 0.6, 0.3)
"""What the model is worth after each step."""


class Score(BaseMetric):
    """Gives the score of the step that the run has come to."""

    step = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(None)

    def compute_metrics(self, results: list) -> dict[str, float]:
        score = SCORES[(self.step - 1) % len(SCORES)]
        return dict(acc=score, loss=score)


class Watch(Hook):
    """Knows where a run began, and tells the score where it is."""

    priority = 'VERY_HIGH'
    began = -1

    def before_train(self, runner: Any) -> None:
        self.began = runner.iter

    def before_val(self, runner: Any) -> None:
        Score.step = runner.iter


def small_runner(work_dir: Path | str, iterations: int = 3, checkpoint: dict | None = None, **options: Any) -> Any:
    """A runner that saves after each step and keeps one checkpoint.

    Args:
        work_dir: Its folder.
        iterations: How many steps it takes.
        checkpoint: Further settings of the checkpoint hook.
        **options: Of the runner.
    """
    saving = dict(type='CheckpointHook', interval=1, by_epoch=False, max_keep_ckpts=1)
    values: dict[str, Any] = dict(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(dataset=Numbers(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=1),
        val_dataloader=dict(dataset=Numbers(), batch_size=8, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(),
        val_evaluator=[Score()],
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint={**saving, **(checkpoint or {})}),
        custom_hooks=[Watch()],
        default_scope='mmengine',
        log_level='WARNING',
        experiment_name=uuid.uuid4().hex,
    )
    values.update(options)
    # Asking for the versions of all compilers takes longer than such a run.
    with mock.patch('mmengine.runner.runner.collect_env', dict):
        return DistillRunner(**values)


def began(runner: Any) -> int:
    """The step that a run began with, 0 where it did not go on from another."""
    return next(hook.began for hook in runner.hooks if isinstance(hook, Watch))


def files(folder: Path, pattern: str = '*.pth') -> list[str]:
    """Names of the files in a folder."""
    return sorted(path.name for path in folder.glob(pattern))
