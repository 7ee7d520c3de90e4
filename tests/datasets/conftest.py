"""Data sets that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini


def silent(line: str) -> None:
    """Swallow a progress line."""


@pytest.fixture(scope='session')
def full_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO-mini with the default settings."""
    return ensure_coco_mini(tmp_path_factory.mktemp('full') / 'coco_mini', report=silent)


@pytest.fixture(scope='session')
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few small images of another seed."""
    settings = MiniSettings(seed=3, train=12, val=6, size=64)
    return ensure_coco_mini(tmp_path_factory.mktemp('small') / 'coco_mini', settings, report=silent)
