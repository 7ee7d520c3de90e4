"""The task loss of a batch that holds images without labels: that of the labelled ones alone."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Callable

from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.unlabelled import is_unlabelled

_LOSS = 'loss_by_feat'
"""Where a head of OpenMMLab computes its losses from its outputs and the data samples."""


@contextlib.contextmanager
def labelled_alone(student: nn.Module, data_samples: list | None) -> Iterator[None]:
    """A context in which the heads of a model compute their losses from the labelled images of the batch alone.

    All images run through the model, so that recorders and batch norm see them.

    Args:
        student: The model.
        data_samples: Those of the batch; where none is without labels, nothing happens.

    Raises:
        DistillError: If a head computes its losses in another way.
    """
    count = len(data_samples or [])
    labelled = [index for index, sample in enumerate(data_samples or []) if not is_unlabelled(sample)]
    if len(labelled) == count:
        yield
        return
    if not labelled:
        raise DistillError('The batch holds unlabelled images alone; set train_dataloader.batch_size to 1 or more.')
    heads = {name: module for name, module in student.named_modules() if callable(getattr(module, _LOSS, None))}
    # A head inside another may be there for more than its losses.
    waiting = {name for name in heads if not any(name.startswith(f'{other}.') for other in heads)}
    if not heads:
        raise _refusal(student, 'none of its heads has')
    try:
        for name, head in heads.items():
            called = functools.partial(waiting.discard, name)
            setattr(head, _LOSS, _restricted(getattr(head, _LOSS), labelled, count, called))
        yield
    finally:
        for head in heads.values():
            vars(head).pop(_LOSS, None)
    if waiting:
        raise _refusal(student, f'its "{min(waiting)}" did not call')


def _refusal(student: nn.Module, reason: str) -> DistillError:
    return DistillError(
        f'The losses of {type(student).__name__} cannot be taken from the labelled images alone, since {reason} '
        f'{_LOSS}; choose a student of another kind, or leave distill.unlabelled out.'
    )


def _restricted(loss: Callable, labelled: list[int], count: int, called: Callable[[], None]) -> Callable:
    """A head's loss that is given what belongs to some images of the batch."""

    @functools.wraps(loss)
    def restricted(*args: Any, **kwargs: Any) -> Any:
        called()
        return loss(*_of_images(args, labelled, count), **_of_images(kwargs, labelled, count))

    return restricted


def _of_images(value: Any, images: list[int], count: int) -> Any:
    """The entries of some images, in tensors and in lists with an entry for each image."""
    if isinstance(value, Tensor):
        if not value.dim() or len(value) != count:
            return value
        # Labelled images come first in a batch; a slice needs neither a copy nor the device's attention.
        return value[: len(images)] if images[-1] == len(images) - 1 else value[images]
    if isinstance(value, (list, tuple)):
        if len(value) == count and all(isinstance(item, (BaseDataElement, dict)) for item in value):
            return [value[index] for index in images]
        return type(value)(_of_images(item, images, count) for item in value)
    if isinstance(value, dict):
        return {key: _of_images(item, images, count) for key, item in value.items()}
    return value
