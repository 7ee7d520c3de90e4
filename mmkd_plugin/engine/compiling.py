"""``torch.compile`` of a student that is looked into while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.anatomy import trunk_name
from mmkd_plugin.utilities.clips import detector_path

_LOSSES = ('loss_by_feat', 'loss_and_target')
"""Methods of modules that compute losses behind their forward pass."""


def compile_student(algorithm: DistillAlgorithm, wanted: Any, logger: Any) -> None:
    """Compile the networks of a student, each on its own and as large as the recorders allow.

    MMEngine compiles ``train_step``. With a teacher in it that would be many pieces: hooks, records, assigners and the
    end of the teacher's pass by an exception. Here the forward passes of backbone, neck and heads are compiled, and
    where a module inside of one is recorded, its parts around that module. So every hook runs outside of what is
    compiled, and sees what it always sees. Losses, connectors and teachers stay as they are.

    Args:
        algorithm: Before it is wrapped.
        wanted: The config's ``compile``: True, or arguments of ``torch.compile``; nothing is done for False and None.
        logger: Told what was compiled.

    Raises:
        DistillError: If that cannot be done.
    """
    if not wanted:
        return
    options = {} if wanted is True else wanted
    if not isinstance(options, dict) or 'target' in options:
        raise DistillError(
            f'compile is {wanted!r}, but a distilled run compiles the networks of the student; write True, or a dict '
            "of arguments of torch.compile such as dict(mode='max-autotune') without a target."
        )
    if not hasattr(torch, 'compile'):
        raise DistillError(f'compile=True needs torch 2.0 or newer, and this is {torch.__version__}; leave it out.')
    student = algorithm.student
    recorded = {recorder.source for recorder in algorithm.distiller.student_recorders.recorders.values()}
    recorded.add(trunk_name(student))
    inner = detector_path(student)
    found = [
        region
        for name, module in student.get_submodule(inner.rstrip('.')).named_children()
        for region in _regions(f'{inner}{name}', module, recorded)
    ]
    # Gradients are compared in the middle of a step, so that a backward pass must leave its inputs for the next.
    config = getattr(getattr(torch, '_functorch', None), 'config', None)
    if hasattr(config, 'donated_buffer'):
        config.donated_buffer = False  # type: ignore[union-attr]
    for _, module in found:
        module.forward = torch.compile(module.forward, **options)
    logger.info(
        f'{len(found)} parts of the student are compiled at their first use, which takes a while: '
        + ', '.join(path for path, _ in found)
    )


def _regions(path: str, module: nn.Module, recorded: Collection[str]) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules with weights inside of which nothing is recorded; single layers are left out."""
    children = list(module.named_children())
    if not children or next(module.parameters(), None) is None:
        return
    inside = any(source.startswith(f'{path}.') for source in recorded)
    heads = any(hasattr(item, method) for item in module.modules() if item is not module for method in _LOSSES)
    if not (inside or heads or isinstance(module, (nn.ModuleList, nn.ModuleDict))):
        yield path, module
        return
    for name, child in children:
        yield from _regions(f'{path}.{name}', child, recorded)
