"""The scripts of ``setup/bootstrap``, which import one another as a folder of scripts does, and installed plugins."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from _helpers.builds import environment as new_environment
from _helpers.builds import pip

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'setup/bootstrap'
TREES = ('benchmarks', 'configs', 'docs', 'examples', 'mmkd_plugin', 'requirements', 'setup', 'tests', 'tools')
FILES = ('LICENSE', 'MANIFEST.in', 'Makefile', 'README.md', 'model-index.yml', 'pyproject.toml', 'setup.cfg')


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
def interpreters(scripts: Path) -> ModuleType:
    """Finding a Python."""
    return importlib.import_module('interpreters')


@pytest.fixture(scope='session')
def mmcv_source(scripts: Path) -> ModuleType:
    """Fetching mmcv."""
    return importlib.import_module('mmcv_source')


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
    for name in (
        'STACK',
        'STACKS',
        'PYTHON',
        'MMCV_WHEELS',
        'TORCH',
        'MMCV_OPS',
        'FORCE_CUDA',
        'CUDA_HOME',
        'CUDA_PATH',
        'CXX',
        'MMKD_CACHE',
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope='session')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree as a fresh clone has it, so that building leaves no trace here."""
    folder = tmp_path_factory.mktemp('source')
    for name in TREES:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope='session')
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The normal wheel."""
    out = tmp_path_factory.mktemp('wheel')
    pip('wheel', '--no-deps', '--no-build-isolation', '-w', out, source, cwd=out)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='session')
def python_with_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel installed."""
    python = new_environment(tmp_path_factory.mktemp('normal') / 'venv')
    pip('--python', python, 'install', '--no-deps', '--ignore-installed', wheel, cwd=wheel.parent)
    return python


@pytest.fixture(scope='session')
def python_editable(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with an editable installation."""
    python = new_environment(tmp_path_factory.mktemp('editable') / 'venv')
    options = ('--no-deps', '--no-build-isolation', '--ignore-installed')
    pip('--python', python, 'install', *options, '-e', source, cwd=python.parent)
    return python
