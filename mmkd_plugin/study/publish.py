"""Reduce a training checkpoint to what using the model needs."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from pathlib import Path

import torch

from mmkd_plugin.compat.checkpoint import load_model_file, weights_of
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.files import output_file


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
    _require_other_file(source, target)
    stored = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict(weights_of(checkpoint, str(source)))
    if half:
        state.update({key: value.half() for key, value in state.items() if _is_floating(value)})
    # The version of the modules that wrote the file, by which they translate keys of former names.
    if hasattr(stored, '_metadata'):
        state._metadata = stored._metadata  # type: ignore[attr-defined]
    of_training = checkpoint.get('meta')
    names = of_training if isinstance(of_training, dict) else {}
    meta = {key: names[key] for key in ('dataset_meta',) if key in names}
    # By way of memory, as torch has errors of its own for a disk that is full.
    content = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), content)
    with output_file(target) as temporary:
        temporary.write_bytes(content.getbuffer())
    return target.stat().st_size


def _require_other_file(source: Path, target: Path) -> None:
    """Refuse to write over the source, by whatever name or link it is called."""
    if target.exists() and source.exists() and os.path.samefile(source, target):
        raise DistillError(
            f'"{target}" is the checkpoint itself, which training needs to be resumed; give another file to write.'
        )


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
