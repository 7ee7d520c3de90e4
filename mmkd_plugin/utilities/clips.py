"""Video trackers, which keep a detector inside and are trained on clips of frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def detector_path(model: nn.Module) -> str:
    """Where the detector lies that a model keeps inside: ``'detector.'``, or empty for a model that is one itself."""
    own = any(getattr(model, name, None) is not None for name in ('neck', 'backbone'))
    return '' if own or not isinstance(getattr(model, 'detector', None), nn.Module) else 'detector.'


def detector_of(model: Any) -> Any:
    """The detector that a tracker keeps inside, any other model itself."""
    return model.detector if detector_path(model) else model


def key_frames(batch: Tensor, samples: list[Any] | None) -> tuple[Tensor, list[Any] | None]:
    """What the detector of a tracker is trained on.

    Args:
        batch: Clips, ``(N, T, 3, H, W)``, or images.
        samples: The data samples of the clips, or of the images.

    Returns:
        The first key frame of each clip, ``(N, 3, H, W)``, and its sample; images as they are.
    """
    if batch.dim() != 5 or not samples:
        return batch, samples
    frames = [sample.key_frames_inds[0] for sample in samples]
    return batch[torch.arange(len(batch)), frames], [sample.get_key_frames()[0] for sample in samples]
