"""What all tests share, and data sets that several of them read."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Iterator, Tuple
from unittest import mock

import mmengine.config.config
import pytest

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini


@pytest.fixture(scope='session', autouse=True)
def unformatted_configs() -> Iterator[None]:
    """MMEngine formats the config of every runner three times, which takes longer than the runs here."""
    with mock.patch.object(mmengine.config.config, 'FormatCode', _parsed):
        yield


@pytest.fixture(scope='session')
def full_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO-mini with the default settings."""
    return ensure_coco_mini(tmp_path_factory.mktemp('full') / 'coco_mini', report=_silent)


@pytest.fixture(scope='session')
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few small images of another seed."""
    settings = MiniSettings(seed=3, train=12, val=6, size=64)
    return ensure_coco_mini(tmp_path_factory.mktemp('small') / 'coco_mini', settings, report=_silent)


def _parsed(text: str, **options: Any) -> Tuple[str, bool]:
    """The text as it is, if it is Python."""
    ast.parse(text)
    return text, False


def _silent(line: str) -> None:
    """Swallow a progress line."""
