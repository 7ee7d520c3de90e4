"""How the weight of a distillation term changes while a run goes on."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple, Union

from mmkd_plugin.errors import DistillError


class Progress(NamedTuple):
    """Where a run is.

    Attributes:
        iteration: Iterations that are done.
        epoch: Epochs that are done.
        iterations: Iterations of the whole run.
        epochs: Epochs of the whole run.
    """

    iteration: int
    epoch: int
    iterations: int
    epochs: int


@dataclasses.dataclass
class WeightSchedule:
    """A factor between 0 and 1 on a weight: nothing, warm-up, full weight, decay, nothing.

    All times count iterations from the start of the run, or epochs.

    Attributes:
        start: The weight is 0 before.
        warm_up: How long it then rises linearly to its full value.
        decay: How it falls from there to ``final``.
        end: When ``final`` is reached; the end of the run by default.
        final: The factor at the end of the decay.
        stop: From then on the weight is 0; never by default.
        by_epoch: Whether times are epochs.
    """

    start: int = 0
    warm_up: int = 0
    decay: Literal['none', 'linear', 'cosine'] = 'none'
    end: Union[int, None] = None  # noqa: UP007
    final: float = 0.0
    stop: Union[int, None] = None  # noqa: UP007
    by_epoch: bool = False

    def __post_init__(self) -> None:
        """Refuse times that are out of order.

        Raises:
            DistillError: Naming the times.
        """
        full = self.start + self.warm_up
        if min(self.start, self.warm_up) < 0:
            raise DistillError(
                f'A schedule starts at {self.start} and warms up over {self.warm_up}; neither must be negative.'
            )
        if self.end is not None and (self.decay == 'none' or self.end <= full):
            raise DistillError(
                f"A schedule ends its decay ('{self.decay}') at {self.end}; it needs decay='linear' or 'cosine' and an "
                f'end after {full}, where the full weight is reached.'
            )
        if self.stop is not None and self.stop <= self.start:
            raise DistillError(f'A schedule stops at {self.stop}, which must be after its start at {self.start}.')
        if not 0 <= self.final <= 1:
            raise DistillError(f'The final factor of a schedule is {self.final:g}; it must lie between 0 and 1.')

    def factor(self, progress: Progress) -> float:
        """The factor at a point of a run.

        Example:
            >>> schedule = WeightSchedule(start=10, warm_up=10, decay='linear', end=40, stop=50)
            >>> [schedule.factor(Progress(at, 0, 100, 1)) for at in (9, 10, 19, 20, 30, 40, 50)]
            [0.0, 0.1, 1.0, 1.0, 0.5, 0.0, 0.0]
        """
        at, last = (progress.epoch, progress.epochs) if self.by_epoch else (progress.iteration, progress.iterations)
        full = self.start + self.warm_up
        if at < self.start or (self.stop is not None and at >= self.stop):
            return 0.0
        if at < full:
            return (at - self.start + 1) / self.warm_up
        if self.decay == 'none':
            return 1.0
        share = min(1.0, (at - full) / max(1, (last if self.end is None else self.end) - full))
        left = 1 - share if self.decay == 'linear' else (1 + math.cos(math.pi * share)) / 2
        return self.final + (1 - self.final) * left
