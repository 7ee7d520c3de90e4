"""Find calls that make the host wait for the device, on any device."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITING_OPERATORS = {
    '_local_scalar_dense',
    'bincount',
    'equal',
    'is_nonzero',
    'masked_select',
    'nonzero',
    'nonzero_static',
    '_unique',
    '_unique2',
    'unique_consecutive',
    'unique_dim',
    'unique_dim_consecutive',
}
"""Operators whose result, or the shape of it, the host must know before it goes on."""
INDEXING_OPERATORS = {'index', 'index_put', 'index_put_', '_index_put_impl_'}
WAITING_METHODS = {'cpu', 'numpy', 'tolist', '__array__'}
"""On the CPU these run without any operator."""


class HostSyncs:
    """Record every host-synchronising call within the block, in the backward pass too.

    Example:
        >>> with HostSyncs() as syncs:
        ...     _ = torch.ones(2).sum().item()
        >>> syncs.calls
        ['_local_scalar_dense']
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._modes = (_Operators(self.calls), _Methods(self.calls))

    def __enter__(self) -> HostSyncs:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)


class _Operators(TorchDispatchMode):
    """Sees operators, also those that Python never names: ``if tensor``, ``x[:tensor]``, ``x[mask]``."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        by_mask = name in INDEXING_OPERATORS and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        by_counts = name == 'repeat_interleave' and kwargs.get('output_size') is None
        to_host = name == '_to_copy' and kwargs.get('device') == torch.device('cpu') and args[0].device.type != 'cpu'
        if name in WAITING_OPERATORS or by_mask or by_counts or to_host:
            self.calls.append(name)
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    """Sees the methods that hand values to the host."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, '__name__', '')
        devices = [item for item in (*args[1:], *kwargs.values()) if isinstance(item, (str, torch.device))]
        to_host = func is Tensor.to and any(torch.device(device).type == 'cpu' for device in devices)
        # A copy that says so does not wait.
        to_host = to_host and not kwargs.get('non_blocking')
        if name in WAITING_METHODS or to_host:
            self.calls.append(name)
        return func(*args, **kwargs)


def count_host_syncs(
    function: Callable[[], object], device: torch.device, optimizers: Iterable[torch.optim.Optimizer] = ()
) -> int:
    """How often the host waits for a device while a function runs.

    Args:
        function: What is run, once.
        device: Where its tensors are. On CUDA torch itself says where it waits. Elsewhere the calls are counted that
            would wait there, without moves by ``to``, whose goal is the device itself where there is no other.
        optimizers: Those that take steps within; they read the numbers of these, which lie on the host in any case.
    """
    if device.type != 'cuda':
        with HostSyncs() as syncs, _not_counted(syncs, optimizers):
            function()
        return sum(name != 'to' for name in syncs.calls)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum('synchronizing CUDA operation' in str(item.message) for item in said)


@contextlib.contextmanager
def _not_counted(syncs: HostSyncs, optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Forget the calls within the steps of optimizers."""
    before: list[int] = []

    def begin(*_: Any) -> None:
        before.append(len(syncs.calls))

    def end(*_: Any) -> None:
        del syncs.calls[before.pop() :]

    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            stack.callback(optimizer.register_step_pre_hook(begin).remove)
            stack.callback(optimizer.register_step_post_hook(end).remove)
        yield
