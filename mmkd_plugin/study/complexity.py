"""Parameters and operations of a model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.logging import MMLogger
from mmengine.model import BaseModel


@dataclasses.dataclass(frozen=True)
class Complexity:
    """What a model is made of.

    Attributes:
        parameters: Their number, trained or not.
        flops: Multiplications with an addition for one image, as MMEngine counts them; None where the model's forward
            pass cannot be traced.
    """

    parameters: int
    flops: int | None


def complexity(model: BaseModel, batch: dict[str, Any]) -> Complexity:
    """Count the parameters of a model and its operations on one batch.

    Args:
        model: A stock detector or segmentor in evaluation mode; it is left as it was.
        batch: One collated item of a data set, as ``model.test_step`` takes it.

    Returns:
        The counts; those of the operations cover the network, without what follows its heads.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    data = model.data_preprocessor(batch, False)
    forward = model.forward
    # The tracer hands over tensors alone.
    model.forward = functools.partial(forward, data_samples=data['data_samples'])
    try:
        with torch.no_grad(), _without_remarks():
            flops = get_model_complexity_info(model, inputs=(data['inputs'],), show_table=False, show_arch=False)
    except Exception:  # a model of any zoo may do what no trace can follow, and a missing figure must stop nothing
        return Complexity(parameters, None)
    finally:
        del model.forward
    return Complexity(parameters, int(flops['flops']))


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """The tracer names every operator that it does not count, for each model again."""
    # Its own method, since MMEngine's loggers do not hear of logging.disable once they have spoken.
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(before)
