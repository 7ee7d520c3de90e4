"""Reduce a training checkpoint to what using the model needs."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

from mmkd_plugin.compat.checkpoint import load_model_file, weights_of
from mmkd_plugin.study.plain_file import dataset_meta, require_other_file, write_plain_file


def publish_checkpoint(source: Path, target: Path, half: bool = False) -> int:
    """Write the weights and the class names alone.

    Args:
        source: Checkpoint of a training run.
        target: File to write; it appears whole or not at all.
        half: Whether floating-point weights are stored in half precision; loading converts them back.

    Returns:
        Bytes written.

    Raises:
        DistillError: If the source holds no weights, or the target is the source or no place for a file.
    """
    checkpoint = load_model_file(str(source))
    require_other_file(source, target)
    stored = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict(weights_of(checkpoint, str(source)))
    if half:
        state.update({key: value.half() for key, value in state.items() if _is_floating(value)})
    # The version of the modules that wrote the file, by which they translate keys of former names.
    if hasattr(stored, '_metadata'):
        state._metadata = stored._metadata  # type: ignore[attr-defined]
    return write_plain_file(target, state, dataset_meta(checkpoint))


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
