"""Reduce a training checkpoint to what using the model needs."""

from __future__ import annotations

from pathlib import Path

import torch

from mmkd_plugin.compat.checkpoint import load_checkpoint_file


def publish_checkpoint(source: Path, target: Path, half: bool = False) -> int:
    """Write the weights and the class names alone.

    Args:
        source: Checkpoint of a training run.
        target: File to write.
        half: Whether floating-point weights are stored in half precision; loading converts them back.

    Returns:
        Bytes written.
    """
    checkpoint = load_checkpoint_file(str(source))
    state = checkpoint['state_dict']
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    meta = {key: checkpoint['meta'][key] for key in ('dataset_meta',) if key in checkpoint.get('meta', {})}
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=meta, state_dict=state), target)
    return target.stat().st_size
