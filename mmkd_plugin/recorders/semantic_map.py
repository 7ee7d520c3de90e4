"""Recorder of the label map that a segmentor is trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkd_plugin.compat.razor import ModuleInputsRecorder
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import TASK_UTILS


@TASK_UTILS.register_module()
class SemanticMapRecorder(ModuleInputsRecorder):
    """The batch's labels, ``(N, H, W)``, taken from the student's inputs, so that they agree with its logits.

    Args:
        source: Module whose inputs are ``(batch, data_samples)``; the empty path is the model itself.
    """

    def __init__(self, source: str = '') -> None:
        super().__init__(source)

    def forward_hook(self, module: torch.nn.Module, inputs: tuple, outputs: Any) -> None:
        """Stack the labels of the data samples, once per step."""
        if self.recording:
            self.data_buffer.append(stack_labels(inputs[1]))


def stack_labels(samples: list) -> Tensor:
    """The labels of a batch, ``(N, H, W)``.

    Raises:
        DistillError: If a sample has none.
    """
    if any(getattr(sample, 'gt_sem_seg', None) is None for sample in samples or [None]):
        raise DistillError(
            'The method needs label maps, but the data samples hold no gt_sem_seg; add LoadAnnotations to the '
            "student's training pipeline."
        )
    return torch.cat([sample.gt_sem_seg.data for sample in samples])
