"""Random numbers that leave the student's own sequence untouched."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def isolated_rng() -> Iterator[None]:
    """Run a block on a random stream derived from the run's seed and put the former state back.

    What distillation adds (teacher, connectors, learned losses) draws from here, so that the student's initial
    weights and its data are those of the stock config with the same seed.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed = (torch.initial_seed() + 1) % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
