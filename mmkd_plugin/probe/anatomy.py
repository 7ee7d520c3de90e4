"""The parts of a detector or segmentor that others look up: its trunk and its auxiliary heads."""

from __future__ import annotations

from torch import nn


def trunk_name(model: nn.Module) -> str:
    """Attribute of the module whose output the heads work on: the neck, or the backbone where there is no neck."""
    return 'neck' if getattr(model, 'neck', None) is not None else 'backbone'


def auxiliary_heads(model: nn.Module) -> dict[str, nn.Module]:
    """The auxiliary heads of a segmentor by path; empty for any other model.

    Only training calls them: the plain forward pass of a segmentor stops at its decode head.
    """
    heads = getattr(model, 'auxiliary_head', None)
    if isinstance(heads, nn.ModuleList):
        return {f'auxiliary_head.{index}': head for index, head in enumerate(heads)}
    return {'auxiliary_head': heads} if isinstance(heads, nn.Module) else {}
