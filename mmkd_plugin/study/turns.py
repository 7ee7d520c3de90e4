"""Step several runs in turns on the same batches, and measure the time and the memory of a step of each."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any, Callable

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmkd_plugin.engine import FiniteHook
from mmkd_plugin.study.memory import optimizers_of, peak_growth, run_bytes
from mmkd_plugin.utilities.host_syncs import count_host_syncs


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What a step of a run costs.

    Attributes:
        seconds: Median of the timed steps.
        held: Bytes that the run holds between two steps.
        peak: Bytes at the most within a step, those included.
    """

    seconds: float
    held: int
    peak: int


class SteppedRun:
    """A run whose steps are taken one by one from outside, with all of its hooks.

    Args:
        runner: The run, within the call of its training loop.
        batches: Batches that the steps take in turns.
    """

    def __init__(self, runner: Runner, batches: Sequence[Any]) -> None:
        self.runner = runner
        self.seconds: list[float] = []
        self._batches = batches
        self._taken = 0
        self._held = self._peak = 0
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._device = next(model.parameters()).device
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        runner.model.train()

    def warm_up(self, steps: int) -> None:
        """Take steps that are not timed; the last one is weighed, so that the optimizer's state is there by then."""
        for index in range(steps):
            if index == steps - 1:
                self._weigh()
            else:
                self._step()

    def timed_step(self) -> None:
        """Take a step and note its time; on a GPU, whose allocator counts anyway, its memory too."""
        if self._device.type == 'cuda' or not self._peak:
            self._weigh()
        else:
            self._step()
        self.seconds.append(self._last)

    def host_syncs(self) -> int:
        """Take a step that is not timed, and count how often the host waits for the device in it."""
        return count_host_syncs(self._step, self._device, optimizers_of(self.runner))

    def cost(self) -> StepCost:
        """What the timed steps cost; what of the readings of their numbers has not arrived is waited for."""
        for hook in self.runner.hooks:
            if isinstance(hook, FiniteHook):
                hook.explain()
        return StepCost(statistics.median(self.seconds), self._held, self._peak)

    def _weigh(self) -> None:
        held = run_bytes(self.runner)
        peak = held + peak_growth(self._step, self._device)
        if peak > self._peak:
            self._held, self._peak = held, peak

    def _step(self) -> None:
        """As the loops of MMEngine take it."""
        runner, loop = self.runner, self.runner.train_loop
        index = self._taken
        batch = copy.deepcopy(self._batches[index % len(self._batches)])
        self._wait()
        started = time.perf_counter()
        runner.call_hook('before_train_iter', batch_idx=index, data_batch=batch)
        outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        runner.call_hook('after_train_iter', batch_idx=index, data_batch=batch, outputs=outputs)
        self._wait()
        self._last = time.perf_counter() - started
        loop._iter += 1
        self._taken += 1

    def _wait(self) -> None:
        """Let a GPU finish, whose work is only queued."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)


def planned(steps: int, accumulated: int, iterations: int) -> tuple[int, int]:
    """How many steps are taken before those that are timed, and how many of these there are.

    Args:
        steps: Wanted.
        accumulated: Steps behind which the weights are first changed.
        iterations: Of the whole run, which is not exceeded.
    """
    before = max(0, min(accumulated + 1, iterations - 1))
    return before, max(1, min(steps, iterations - before))


def take_turns(runs: Sequence[SteppedRun], rounds: int, before_step: Callable[[int], object] | None = None) -> None:
    """Take timed steps of several runs, one of each in a round, whose order changes from round to round.

    Args:
        runs: Warmed up.
        rounds: How many steps each takes.
        before_step: Called with the number of the round, from 0, before each step.
    """
    for number in range(rounds):
        first = number % len(runs)
        for run in [*runs[first:], *runs[:first]]:
            if before_step is not None:
                before_step(number)
            run.timed_step()


def train_with(runner: Runner, loop: Callable[[], None]) -> None:
    """Prepare a run as for its training, and call a function in the place of its training loop.

    Args:
        runner: The run, with its distillation.
        loop: The function.
    """
    runner.train_loop.run = loop
    runner.train()


def train_together(runners: Sequence[Runner], loop: Callable[[], None]) -> None:
    """Prepare several runs as for their training, and call a function in the place of all of their loops.

    Args:
        runners: The runs, prepared in this order.
        loop: The function.
    """
    if runners:
        train_with(runners[0], lambda: train_together(runners[1:], loop))
    else:
        loop()
