"""Recorder of the images that the student sees."""

from __future__ import annotations

from typing import Any

import torch

from mmkd_plugin.compat.razor import ModuleInputsRecorder
from mmkd_plugin.registry import TASK_UTILS


@TASK_UTILS.register_module()
class ImageRecorder(ModuleInputsRecorder):
    """The preprocessed batch, ``(N, 3, H, W)``.

    Args:
        source: Module whose inputs are ``(batch, data_samples)``; the empty path is the model itself.
    """

    def __init__(self, source: str = '') -> None:
        super().__init__(source)

    def forward_hook(self, module: torch.nn.Module, inputs: tuple, outputs: Any) -> None:
        """Keep the batch, once per step."""
        if self.recording:
            self.data_buffer.append(inputs[0])
