"""The scripts of ``setup/bootstrap``, which import one another as a folder of scripts does."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / 'setup/bootstrap'


@pytest.fixture(scope='session')
def scripts() -> Iterator[Path]:
    """The folder, with its scripts importable by name."""
    sys.path.insert(0, str(FOLDER))
    yield FOLDER
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope='session')
def console(scripts: Path) -> ModuleType:
    """Running commands."""
    return importlib.import_module('console')


@pytest.fixture(scope='session')
def environment(scripts: Path) -> ModuleType:
    """The virtual environment."""
    return importlib.import_module('environment')


@pytest.fixture(scope='session')
def mmcv_wheel(scripts: Path) -> ModuleType:
    """Building mmcv."""
    return importlib.import_module('mmcv_wheel')


@pytest.fixture(scope='session')
def steps(scripts: Path) -> ModuleType:
    """The script that runs the steps, not run."""
    spec = importlib.util.spec_from_file_location('bootstrap_steps', scripts / '__main__.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('TORCH', 'MMCV_OPS', 'FORCE_CUDA', 'CUDA_HOME', 'CUDA_PATH', 'CXX', 'MMKD_CACHE'):
        monkeypatch.delenv(name, raising=False)
