"""Operators of mmcv, which take maps in the default memory layout alone, and know no bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd_plugin.utilities.nested import map_tensors, tensors_of


def of_mmcv(module: nn.Module) -> bool:
    """Whether a module is an operator of mmcv."""
    return type(module).__module__.startswith('mmcv.ops.')


def operators(model: nn.Module) -> list[nn.Module]:
    """Operators of mmcv, and what cuts regions out of maps with them.

    Args:
        model: Of any kind.

    Returns:
        The outermost modules, none of which lies inside of another. A RoI extractor is one of them, since it brings
        boxes to the precision of the maps, in which they lose whole pixels.
    """
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():
        if id(module) not in inside and (of_mmcv(module) or isinstance(getattr(module, 'roi_layers', None), nn.Module)):
            found.append(module)
            inside |= {id(inner) for inner in module.modules()}
    return found


def accept_bfloat16(model: nn.Module) -> None:
    """Let operators of mmcv compute in single precision where autocast gives them bfloat16, which they refuse.

    Args:
        model: Of any kind; it is changed once, however often this is called.
    """
    for module in operators(model):
        if _widened not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_widened, with_kwargs=True)


def _widened(module: nn.Module, inputs: Any, named: Any) -> Any:
    if not any(item.dtype == torch.bfloat16 for item in tensors_of([inputs, named])):
        return None
    return map_tensors(_single, inputs), map_tensors(_single, named)


def _single(item: Tensor) -> Tensor:
    return item.float() if item.dtype == torch.bfloat16 else item
