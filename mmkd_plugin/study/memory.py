"""The memory of a training step: what a run holds between two steps, and what a step takes on top."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Callable

import torch
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.utilities.nested import tensors_of


def run_bytes(runner: Runner) -> int:
    """Bytes that a run holds between two steps.

    Args:
        runner: Within its training.

    Returns:
        The size of the weights, buffers and gradients of all its models, teachers and averaged copies among them, and
        of the state of its optimizers.
    """
    algorithm = algorithm_of(runner)
    models = [runner.model.module if is_model_wrapper(runner.model) else runner.model]
    # One whose records are all kept is not there.
    teachers = [teacher for teacher in algorithm.teachers.values() if teacher.built] if algorithm is not None else []
    models += [teacher.model for teacher in teachers]
    models += [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model')]
    tensors: list[Tensor] = []
    for model in models:
        tensors += [*model.parameters(), *model.buffers()]
    tensors += [tensor.grad for tensor in tensors if tensor.requires_grad and tensor.grad is not None]
    for optimizer in optimizers_of(runner):
        tensors += tensors_of(list(optimizer.state.values()))
    return tensor_bytes(tensors) + sum(teacher.economy.held() for teacher in teachers)


def optimizers_of(runner: Runner) -> list[torch.optim.Optimizer]:
    """All optimizers of a run, those of its discriminators among them.

    Args:
        runner: Within its training.
    """
    wrapper = runner.optim_wrapper
    wrappers = list(wrapper.optim_wrappers.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    algorithm = algorithm_of(runner)
    if algorithm is not None:
        wrappers += [adversary.wrapper for adversary in algorithm.adversaries.values()]
    return [each.optimizer for each in wrappers]


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each memory counted once however many of them share it."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def peak_growth(function: Callable[[], object], device: torch.device) -> int:
    """The most memory that torch gives to tensors at one time while a function runs.

    Args:
        function: What is run, once.
        device: Where its tensors are. On CUDA its allocator keeps count; elsewhere the profiler notes every
            allocation on the host, which slows the function down.

    Returns:
        Bytes beyond what was held when it began.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with _without_remarks(), torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        function()
    result = getattr(profiler.profiler, 'kineto_results', None)
    events = result.events() if result is not None else []
    held = peak = 0
    for event in events:
        # In the order in which they happened; what is freed counts negatively.
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """The profiler writes remarks for its own developers past Python to the standard error."""
    kept = os.dup(2)
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
