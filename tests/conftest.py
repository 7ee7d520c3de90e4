"""What all tests share."""

from __future__ import annotations

import ast
from typing import Any, Iterator, Tuple
from unittest import mock

import mmengine.config.config
import pytest


@pytest.fixture(scope='session', autouse=True)
def unformatted_configs() -> Iterator[None]:
    """MMEngine formats the config of every runner three times, which takes longer than the runs here."""
    with mock.patch.object(mmengine.config.config, 'FormatCode', _parsed):
        yield


def _parsed(text: str, **options: Any) -> Tuple[str, bool]:
    """The text as it is, if it is Python."""
    ast.parse(text)
    return text, False
