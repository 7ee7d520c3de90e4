"""The optimizer of a distilled run: the student's, and a group of its own for what distillation trains."""

from __future__ import annotations

from typing import Any

from mmkd_plugin.distillers import Distiller


def with_distiller(wrapper: Any, distiller: Distiller) -> Any:
    """Add what the distiller trains to an optimizer that was built for the student alone.

    Args:
        wrapper: MMEngine's wrapper around the student's optimizer.
        distiller: Its connectors and learned losses are added, as the last group; where nothing of it is trained, there
            is none.

    Returns:
        The wrapper.
    """
    added = {name: item for name, item in distiller.named_parameters() if item.requires_grad}
    if added:
        group: dict[str, Any] = dict(params=list(added.values()))
        # Layer-wise decay names the parameters of its groups, and torch wants names in all groups or in none.
        if 'param_names' in wrapper.optimizer.param_groups[0]:
            group['param_names'] = [f'distiller.{name}' for name in added]
        wrapper.optimizer.add_param_group(group)
    return wrapper
