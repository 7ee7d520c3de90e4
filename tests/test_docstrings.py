"""The examples in the docstrings of the losses run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import mmkd_plugin.losses

MODULES = [module.name for module in pkgutil.walk_packages(mmkd_plugin.methods.__path__, 'mmkd_plugin.methods.')]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
