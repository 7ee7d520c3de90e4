"""What the ranks of a distributed run must agree on."""

from __future__ import annotations

import re

from mmengine.dist import all_reduce
from torch import Tensor, nn

_WRAPPERS = re.compile(r'(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.')


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average a normaliser over all ranks, so that the loss does not depend on how images are spread over them.

    Gradients are averaged over ranks afterwards, so each rank must divide by the mean of all ranks' normalisers, not by
    its own. All ranks must call this together.

    Args:
        value: Any shape, floating point, without gradient.

    Returns:
        The mean, in a tensor of its own.
    """
    mean = value.clone()
    all_reduce(mean, op='mean')
    return mean


def plain_name(name: str) -> str:
    """The name of a parameter without what torch wraps modules in."""
    return _WRAPPERS.sub('', name)


def is_sharded(module: nn.Module) -> bool:
    """Whether no process has all of a module, so that its state is gathered by all of them together."""
    return any('_fsdp_wrapped_module' in item._modules for item in module.modules())
