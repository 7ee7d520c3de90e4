"""Weights that find themselves: the gradient of a method is kept in a given ratio to that of the task loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmkd_plugin.distillers.schedule import Progress

STEPS_PER_PASS = 50
"""A measurement goes backward once for the task loss and once for each method, from the losses to the features.

Such a pass costs less than half a step: it is a part of the student's backward pass, beside which a step has the
student's forward pass and the teacher's. At one pass in 50 steps, and the few more at the start, measuring stays below
2 % of a run.
"""
SMOOTHING = 0.5
"""How far a factor moves, on a logarithmic scale, towards what one measurement asks for."""
LARGEST_STEP = math.log(4)
"""How far it moves at most, the first measurement apart."""
BOUND = math.log(1e3)
"""How far from the weight that it begins with it may come."""
SETTLE = 0.25
"""After which part of a run a factor is held."""
SETTLED_STEPS = 100
"""How many steps that part has at least: before, gradients mislead."""


@dataclasses.dataclass(frozen=True)
class Balanced:
    """A method whose weight finds itself.

    Attributes:
        share: The ratio of its gradient to that of the task loss.
        losses: Names of its losses.
        weight: The ``loss_weight`` that its losses were built with.
    """

    share: float
    losses: Sequence[str]
    weight: float = 1.0


class Balance(nn.Module):
    r"""A factor for each of several methods, measured now and then and smoothed.

    With the norms of the gradients :math:`g_{task}` and :math:`g` (without the factor) and the share :math:`s`, a
    measurement asks for :math:`f = s\,g_{task}/g`. The first one is taken as it is; from each further one the logarithm
    of the factor takes over a part, in steps that are bounded. What is not finite, or zero, is passed over. Nothing
    here makes the host wait for the device, and all of it is in the state.

    It is measured at the first step of a method, at once, then after gaps that double until they have reached their
    full length, and no more once the method was trained for a part of the run: from then on its factor is held, so that
    its pull may fade while the student comes near to the teacher.

    Args:
        methods: Arguments of :class:`Balanced` by the name of the method.
        settle: That part of the run, 0 to 1, of at least ``SETTLED_STEPS``; 1 measures to the end.
    """

    log_factors: Tensor
    log_shares: Tensor
    counts: Tensor

    def __init__(self, methods: Mapping[str, Mapping], settle: float = SETTLE) -> None:
        super().__init__()
        self.settle = settle
        self.methods = {name: Balanced(**values) for name, values in methods.items()}
        shares = [math.log(method.share) for method in self.methods.values()]
        self.register_buffer('log_shares', torch.tensor(shares), persistent=False)
        self.register_buffer('log_factors', torch.zeros(len(shares)))
        self.register_buffer('counts', torch.zeros(len(shares), dtype=torch.long))
        self.paused = False
        """Whether the factors stay as they are."""
        self._begun: dict[str, int] = {}
        self._gap = self._left = 1

    @property
    def longest_gap(self) -> int:
        """Steps between two measurements once the gaps have grown."""
        return STEPS_PER_PASS * (1 + len(self.methods))

    def due(self, losses: Collection[str], progress: Progress | None = None) -> list[str]:
        """Count a step of the training, and say what is to be measured in it.

        Args:
            losses: Those that have a weight in this step.
            progress: Where the run is; where that is not known, nothing is held.

        Returns:
            Names of methods, mostly none.
        """
        active = [name for name, method in self.methods.items() if not set(losses).isdisjoint(method.losses)]
        if self.paused:
            return []
        fresh = [name for name in active if name not in self._begun]
        self._begun.update(dict.fromkeys(fresh, progress.iteration if progress else 0))
        active = [name for name in active if name in fresh or not self._held(name, progress)]
        if not active:
            return []
        self._left -= 1
        if fresh:
            self._gap = 1
        elif self._left > 0:
            return []
        self._left = self._gap
        self._gap = min(2 * self._gap, self.longest_gap)
        return active

    def _held(self, name: str, progress: Progress | None) -> bool:
        """Whether a method was trained for so long that its factor stays."""
        if progress is None:
            return False
        return progress.iteration - self._begun[name] >= max(self.settle * progress.iterations, SETTLED_STEPS)

    @torch.no_grad()
    def update(self, squares: Mapping[str, Tensor]) -> None:
        """Take a measurement into account.

        Args:
            squares: For each method that was measured, the squared norms of the task loss's gradient and of its own
                without the factor, ``(2,)``, equal on all ranks.
        """
        missing = torch.zeros_like(self.log_factors[:1]).expand(2)
        both = torch.stack([squares.get(name, missing).to(missing) for name in self.methods])
        task, own = both.log().unbind(1)
        wish = self.log_shares - (own - task) / 2
        valid = wish.isfinite()
        change = wish - self.log_factors
        smooth = (SMOOTHING * change).clamp(-LARGEST_STEP, LARGEST_STEP)
        moved = self.log_factors + torch.where(self.counts == 0, change, smooth)
        self.log_factors.copy_(torch.where(valid, moved.clamp(-BOUND, BOUND), self.log_factors))
        self.counts += valid

    def factors(self) -> dict[str, Tensor]:
        """The factor of each loss of these methods, by the name of the loss, each a scalar."""
        found = self.log_factors.exp().unbind()
        return {loss: found[index] for index, method in enumerate(self.methods.values()) for loss in method.losses}

    def weights(self) -> dict[str, Tensor]:
        """What ``loss_weight`` comes to, by method, each a scalar."""
        found = self.log_factors.exp().unbind()
        return {name: method.weight * factor for (name, method), factor in zip(self.methods.items(), found)}

    def at_bound(self) -> list[str]:
        """The methods whose factor would go further if it might; waits for the device."""
        return [name for name, item in zip(self.methods, self.log_factors.tolist()) if abs(item) >= BOUND * (1 - 1e-6)]

    def get_extra_state(self) -> Tensor:
        """When it is measured next, so that a resumed run measures at the same steps."""
        return torch.tensor([self._gap, self._left, *(self._begun.get(name, -1) for name in self.methods)])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore :meth:`get_extra_state`."""
        self._gap, self._left, *begun = state.tolist()
        self._begun = {name: step for name, step in zip(self.methods, begun) if step >= 0}
