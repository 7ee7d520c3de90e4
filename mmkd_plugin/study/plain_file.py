"""The file of a plain model: its weights by the stock model's own keys, the names of its classes, and no more."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.files import output_file

_FORMER = {'CLASSES': 'classes', 'PALETTE': 'palette'}
"""What MMDetection 2 and MMSegmentation 0 wrote straight into a checkpoint's meta information."""


def dataset_meta(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint's meta information that inferencers read.

    Args:
        checkpoint: What a file holds.

    Returns:
        A ``meta`` with ``dataset_meta``, the names and colours of the classes; empty where the file has none. Arrays
        are lists in it, which any torch reads as data.
    """
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping):
        return {}
    found = meta.get('dataset_meta') or {new: meta[old] for old, new in _FORMER.items() if meta.get(old) is not None}
    return dict(dataset_meta=_listed(found)) if found else {}


def require_other_file(source: Path, target: Path) -> None:
    """Refuse to write over the source, by whatever name or link it is called.

    Args:
        source: The checkpoint that is read.
        target: The file to write.

    Raises:
        DistillError: If they are one file.
    """
    if target.exists() and source.exists() and os.path.samefile(source, target):
        raise DistillError(
            f'"{target}" is the checkpoint itself, which training needs to be resumed; give another file to write.'
        )


def write_plain_file(
    target: Path, state: Mapping[str, Any], meta: dict[str, Any], check: Callable[[Path], None] | None = None
) -> int:
    """Write a model's file.

    Args:
        target: The file; it appears whole or not at all.
        state: The weights.
        meta: Meta information.
        check: Looks at the file before it gets its name; what it raises leaves nothing behind.

    Returns:
        Bytes written.

    Raises:
        DistillError: If the target is no place for a file.
    """
    # By way of memory, as torch has errors of its own for a disk that is full.
    content = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), content)
    with output_file(target) as temporary:
        temporary.write_bytes(content.getbuffer())
        if check is not None:
            check(temporary)
    return target.stat().st_size


def _listed(value: Any) -> Any:
    """Nested meta information with lists and numbers in place of NumPy's."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(_listed(each) for each in value)
    return value
