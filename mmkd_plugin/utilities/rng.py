"""Random numbers that leave the student's own sequence untouched."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

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


def random_states() -> dict[str, Any]:
    """The states of all generators that a step draws from, as tensors, arrays and plain types.

    The host knows that of a GPU without waiting for it.
    """
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if started else None,
        numpy=np.random.get_state(),
        python=random.getstate(),
    )


def restore_random_states(states: dict[str, Any]) -> None:
    """Put the states of :func:`random_states` back; that of a GPU only where there is one."""
    torch.set_rng_state(states['torch'])
    if states['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'])
    np.random.set_state(states['numpy'])
    random.setstate(states['python'])
