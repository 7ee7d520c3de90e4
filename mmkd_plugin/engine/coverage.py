"""Whether a checkpoint fills the model that is tested with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import nn

from mmkd_plugin.compat.checkpoint import weights_of
from mmkd_plugin.errors import DistillError

_STATISTICS = ('running_mean', 'running_var')


class Coverage:
    """What of a model is written while a checkpoint is loaded, whichever way the loader takes.

    Loaders rename and convert keys, so names alone do not tell. Torch counts how often a tensor was written.

    Args:
        model: Before the checkpoint is loaded.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        if is_model_wrapper(model):
            self.model = model.module
        self._before = {name: (tensor, tensor._version) for name, tensor in _learned(self.model)}

    def missing(self) -> list[str]:
        """Names of the parameters and running statistics that were not written since."""
        return [
            name
            for name, tensor in _learned(self.model)
            if name in self._before and self._before[name][0] is tensor and self._before[name][1] == tensor._version
        ]

    def require_all(self, checkpoint: Any, path: str) -> None:
        """Refuse a checkpoint that left something as it was.

        Args:
            checkpoint: What was loaded.
            path: What the user gave; the error names it.

        Raises:
            DistillError: With the counts and the first keys.
        """
        missing = self.missing()
        if not missing:
            return
        own = dict(_learned(self.model))
        stored = {re.sub(r'^module\.', '', key): value for key, value in weights_of(checkpoint, path).items()}
        shapes = [
            f'"{name}" has the shape {tuple(stored[name].shape)} in the file and {tuple(own[name].shape)} in the model'
            for name in missing
            if isinstance(stored.get(name), torch.Tensor)
        ]
        absent = [f'it lacks "{name}"' for name in missing if name not in stored]
        shown = [*shapes[:1], *absent[: 2 if shapes else 3]]
        extra = [f'"{key}"' for key in stored if key not in own and key not in self.model.state_dict()]
        if extra:
            shown.append(f'the model has no {", ".join(extra[:2])}')
        filled = f'{len(own) - len(missing)} of {len(own)} weights of {type(self.model).__name__}'
        examples = '; '.join(shown)
        raise DistillError(
            f'The checkpoint "{path}" is one of another model: it fills {filled} ({examples}); give the one '
            'that was trained with this config, or the config that it was trained with.'
        )


def _learned(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and the statistics of norm layers; other buffers are constants or counters."""
    yield from model.named_parameters()
    for name, buffer in model.named_buffers():
        if name.endswith(_STATISTICS):
            yield name, buffer
