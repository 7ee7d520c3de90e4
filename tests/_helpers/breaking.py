"""Runs on made-up images in which one term breaks at a chosen step and level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from _helpers.tiny import block, run_config
from mmkd_plugin.registry import MODELS

START = 1024.0


@MODELS.register_module(force=True)
class BreakingLoss(nn.Module):
    """A mean squared difference that breaks at one step, for features of one width; step -1 is every step."""

    def __init__(self, fault: str, step: int, size: int | None = None, rank: int = 0) -> None:
        super().__init__()
        self.fault, self.step, self.size, self.rank = fault, step, size, rank

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        value = 0.01 * (student.mean() - teacher.mean()) ** 2
        # As the runner counts, so that a repeated step is the same step.
        now = MessageHub.get_current_instance().get_info('iter') + 1
        here = self.size in (None, student.shape[-1]) and self.rank == get_rank()
        if not here or self.step not in (now, -1):
            return value
        if self.fault == 'gradient':
            # A root at zero: the value is 0, its derivative is not finite.
            return value + (student - student.detach()).abs().sum().sqrt()
        return value * {'nan': float('nan'), 'inf': float('inf')}[self.fault]


def broken_run(
    work_dir: Path | str,
    fault: str,
    step: int,
    level: int = 0,
    iterations: int = 6,
    distill: dict | None = None,
    rank: int = 0,
    **changes: Any,
) -> Config:
    """A run whose term ``loss_x`` breaks.

    Args:
        work_dir: Folder of the run.
        fault: ``'nan'``, ``'inf'`` or ``'gradient'``.
        step: Iteration, from 1.
        level: Level of the neck, which have 8, 4 and 2 columns.
        iterations: Of the whole run.
        distill: Further keys of the block.
        rank: Of the process in which it breaks.
        **changes: Further keys of the config.
    """
    loss = dict(type='mmkd_plugin.BreakingLoss', fault=fault, step=step, size=8 >> level, rank=rank)
    methods = dict(x=dict(type='Feature', loss=loss))
    return run_config(work_dir, iterations, distill=block(methods=methods, **(distill or {})), **changes)


@OPTIM_WRAPPERS.register_module(force=True)
class HostScaling(OptimWrapper):
    """MMEngine's wrapper of mixed precision with torch's scaler for the host; MMEngine's own asks for a GPU."""

    def __init__(self, scale: float = START, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()
