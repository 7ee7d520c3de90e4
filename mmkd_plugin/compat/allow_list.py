"""What MMEngine's checkpoints hold besides tensors, allowed under torch's safe loading."""

from __future__ import annotations

import importlib
import pickle
from typing import Any, Callable

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_METHODS: dict[type, tuple[str, ...]] = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _stored_method(owner: Any, name: Any) -> Callable:
    """Stand in for ``getattr``, which a pickle calls for the methods that MMEngine's objects hold.

    The real one would hand out every attribute of every allowed object.
    """
    for known, names in _METHODS.items():
        if owner is known and name in names:
            return getattr(known, name)
    raise pickle.UnpicklingError('Unsupported global: GLOBAL builtins.getattr was called for another attribute.')


def allow_mmengine_checkpoints() -> None:
    """Allow the types of a checkpoint that MMEngine's runner saves, and no others.

    They are the logged scalars (``HistoryBuffer`` with its statistics, in numpy arrays and scalars), the plain data of
    a config in the data set's meta information, and the annealing function of a one-cycle schedule. Both module paths
    of numpy are known, so that files written under numpy 1 load under numpy 2 and the other way round.
    """
    # numpy 1 has no numpy._core, and numpy 2 warns about numpy.core.
    core = 'numpy._core' if np.lib.NumpyVersion(np.__version__) >= '2.0.0.dev0' else 'numpy.core'
    multiarray = importlib.import_module(f'{core}.multiarray')
    allowed: list[Any] = [HistoryBuffer, OneCycleParamScheduler, ConfigDict, np.ndarray, np.dtype]
    allowed += {type(np.dtype(code)) for code in np.typecodes['All']}
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(getattr(multiarray, name), f'{module}.{name}') for name in ('_reconstruct', 'scalar')]
    allowed.append((_stored_method, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)
