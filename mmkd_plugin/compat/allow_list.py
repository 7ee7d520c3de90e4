"""What MMEngine's checkpoints hold besides tensors, allowed where they are read safely."""

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


def mmengine_globals() -> dict[str, Any]:
    """What a checkpoint that MMEngine's runner saves holds besides tensors.

    The logged scalars (``HistoryBuffer`` with its statistics, in numpy arrays and scalars), the plain data of a config
    in the data set's meta information, and the annealing function of a one-cycle schedule. Both module paths of numpy
    are known, so that files written under numpy 1 load under numpy 2 and the other way round.

    Returns:
        Objects by the full names that a pickle gives them.
    """
    # numpy 1 has no numpy._core, and numpy 2 warns about numpy.core.
    core = 'numpy._core' if np.lib.NumpyVersion(np.__version__) >= '2.0.0.dev0' else 'numpy.core'
    multiarray = importlib.import_module(f'{core}.multiarray')
    allowed = {
        _full_name(kind): kind for kind in (HistoryBuffer, OneCycleParamScheduler, ConfigDict, np.ndarray, np.dtype)
    }
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.update((f'{module}.{name}', getattr(multiarray, name)) for name in ('_reconstruct', 'scalar'))
    allowed['builtins.getattr'] = _stored_method
    return allowed


def allow_mmengine_checkpoints() -> None:
    """Let torch's own safe loading, which the stock tools use, read MMEngine's checkpoints too.

    On a torch that takes no names (before 2.6) nothing changes: there the stock tools load without a check.
    """
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        return
    allowed = mmengine_globals()
    # torch goes by the exact type when a state is set, and every dtype of numpy has one of its own.
    allowed.update((_full_name(kind), kind) for kind in {type(np.dtype(code)) for code in np.typecodes['All']})
    # As pairs throughout: MMEngine's fork takes away what it had added itself, HistoryBuffer among it.
    torch.serialization.add_safe_globals([(item, name) for name, item in allowed.items()])


def _full_name(kind: type) -> str:
    return f'{kind.__module__}.{kind.__qualname__}'
