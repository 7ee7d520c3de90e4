"""What several tests of checkpoints share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture()
def mark(tmp_path: Path) -> Path:
    """A file that exists only if an attack ran."""
    return tmp_path / 'attacked'
