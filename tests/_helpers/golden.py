"""Recorded numbers, and the comparison with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / 'golden'


def read_golden(name: str) -> dict[str, Tensor]:
    """Arrays of a golden file as tensors."""
    with np.load(GOLDEN / f'{name}.npz') as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_near(actual: Tensor, expected: Any, tolerance: float, floor: float = 0.0, name: str = '') -> None:
    """Compare tensors relative to the largest expected value, or to ``floor`` where that is larger."""
    expected = torch.as_tensor(expected).double()
    assert actual.shape == expected.shape, f'{name}: {tuple(actual.shape)} is not {tuple(expected.shape)}'
    scale = max(expected.abs().max().item() if expected.numel() else 0.0, floor)
    error = (actual.detach().double() - expected).abs().max().item() if expected.numel() else 0.0
    assert error <= tolerance * scale, f'{name}: off by {error:.3e} at a scale of {scale:.3e}'
