"""A formula has the defaults of the loss module that is built on it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typing_extensions import get_args

from mmkd_plugin import functional, methods
from mmkd_plugin.methods import DistillLoss
from mmkd_plugin.utilities.settings import settings_of

LOSSES: list[Any] = [item for item in vars(methods).values() if inspect.isclass(item) and issubclass(item, DistillLoss)]


def functions_of(loss: Any) -> Iterator[Callable]:
    """The public formulas in the file of the method's name."""
    name = loss.__module__.rpartition('.')[2]
    module = importlib.import_module(f'mmkd_plugin.functional.{name}')
    for each in functional.__all__:
        function = getattr(functional, each)
        if inspect.isfunction(function) and function.__module__ == module.__name__:
            yield function


def shared_defaults() -> Iterator[Any]:
    """Every setting of a loss that a formula of its method has a default for."""
    for loss in LOSSES:
        if loss is DistillLoss:
            continue
        for function in functions_of(loss):
            parameters = inspect.signature(function).parameters
            for name in settings_of(loss):
                if name in parameters and parameters[name].default is not inspect.Parameter.empty:
                    yield pytest.param(loss, function, name, id=f'{loss.__name__}-{function.__name__}-{name}')


SHARED = list(shared_defaults())


@pytest.mark.parametrize(('loss', 'function', 'name'), SHARED)
def test_defaults_agree(loss, function, name):
    assert inspect.signature(function).parameters[name].default == settings_of(loss)[name].default


def test_every_loss_is_compared():
    assert {item.values[0] for item in SHARED} == set(LOSSES) - {DistillLoss}


@pytest.mark.parametrize(
    ('loss', 'name', 'choices'),
    [
        ('ChenHintLoss', 'norm', 'chen.NORMS'),
        ('ChenHintLoss', 'reduction', 'chen.REDUCTIONS'),
        ('FGILoss', 'reading', 'fgi.READINGS'),
        ('HolisticLoss', 'adversary', 'holistic.ADVERSARIES'),
        ('PixelWiseLoss', 'divergence', 'soft_labels.DIVERGENCES'),
        ('PixelWiseLoss', 'reduction', 'structured_seg.PIXEL_REDUCTIONS'),
        ('PairWiseLoss', 'pooling', 'structured_seg.POOLINGS'),
    ],
)
def test_choices_agree(loss, name, choices):
    module, _, constant = choices.partition('.')
    allowed = getattr(importlib.import_module(f'mmkd_plugin.functional.{module}'), constant)
    assert set(allowed) == set(get_args(settings_of(getattr(methods, loss))[name].hint))
