"""The losses of methods: weighted terms that any distiller and any training loop can use."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict

import torch
from torch import Tensor, nn

from mmkd_plugin.utilities.nested import tensors_of
from mmkd_plugin.utilities.settings import checked


class DistillLoss(nn.Module):
    """A loss of one or several weighted terms.

    A subclass defines a method ``terms``. Calling the module gives their sum, one scalar as MMRazor's own distiller and
    any training loop expect it; the plugin's distiller asks for the terms, which it schedules and logs one by one.

    The constructor of a subclass is the source of its settings: names, types, defaults and ranges stand in its
    signature and their meanings in the docstring. What they do not allow is refused when it is built.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if '__init__' in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
        if 'terms' in vars(cls) and 'forward' not in vars(cls):
            cls.forward = _summed(cls.terms)

    terms: Callable[..., Dict[str, Tensor]]
    """Gives the weighted terms by name, each a scalar, without those of weight 0; a method of the subclass."""


def _summed(terms: Callable[..., Dict[str, Tensor]]) -> Callable[..., Tensor]:
    """A ``forward`` with the signature of ``terms``."""

    @functools.wraps(terms)
    def forward(self: DistillLoss, *args: Any, **kwargs: Any) -> Tensor:
        values = self.terms(*args, **kwargs)
        if not values:
            return next(tensors_of([args, kwargs])).new_zeros((), dtype=torch.float32)
        return torch.stack(list(values.values())).sum()

    return forward
