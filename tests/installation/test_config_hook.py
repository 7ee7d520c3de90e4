"""The import hook completes MMEngine's table when MMEngine is imported, and does nothing else."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from mmkd_plugin.compat import config_hook
from mmkd_plugin.errors import DistillError


@pytest.fixture()
def table_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A stand-in for the module that holds MMEngine's table, not imported yet; gives its file."""
    (tmp_path / 'stand_in_engine').mkdir()
    (tmp_path / 'stand_in_engine/__init__.py').touch()
    file = tmp_path / 'stand_in_engine/utils.py'
    file.write_text("MODULE2PACKAGE = {'mmseg': 'mmsegmentation'}\n")
    monkeypatch.setattr(config_hook, 'TABLE_MODULE', 'stand_in_engine.utils')
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield file
    sys.meta_path[:] = finders
    for name in ('stand_in_engine', 'stand_in_engine.utils'):
        sys.modules.pop(name, None)


def test_table_is_completed_on_import(table_module: Path) -> None:
    config_hook.install()
    assert 'stand_in_engine' not in sys.modules
    module = importlib.import_module('stand_in_engine.utils')
    assert set(module.MODULE2PACKAGE) == {'mmseg', 'mmkd_plugin'}
    assert module.MODULE2PACKAGE['mmkd_plugin'] == 'mmkd_plugin'


@pytest.mark.parametrize(
    ('installed', 'name'),
    [
        ((), 'mmsegmentation'),
        (('mmsegmentation',), 'mmsegmentation'),
        (('onedl-mmsegmentation',), 'onedl-mmsegmentation'),
        (('mmsegmentation', 'onedl-mmsegmentation'), 'mmsegmentation'),
    ],
)
def test_package_goes_by_the_name_it_is_installed_under(
    table_module: Path, monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], name: str
) -> None:
    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return '1.0'

    monkeypatch.setattr(importlib.metadata, 'version', version)
    config_hook.install()
    assert importlib.import_module('stand_in_engine.utils').MODULE2PACKAGE['mmseg'] == name


def test_imported_table_is_completed_at_once(table_module: Path) -> None:
    module = importlib.import_module('stand_in_engine.utils')
    config_hook.install()
    assert module.MODULE2PACKAGE['mmkd_plugin'] == 'mmkd_plugin'


def test_entry_of_mmengine_itself_stands(table_module: Path) -> None:
    table_module.write_text("MODULE2PACKAGE = {'mmkd_plugin': 'other'}\n")
    config_hook.install()
    assert importlib.import_module('stand_in_engine.utils').MODULE2PACKAGE == {'mmkd_plugin': 'other'}


def test_mmengine_without_a_table_imports(table_module: Path) -> None:
    table_module.write_text('x = 1\n')
    config_hook.install()
    assert importlib.import_module('stand_in_engine.utils').x == 1


def test_missing_mmengine_keeps_its_own_error(table_module: Path) -> None:
    table_module.unlink()
    config_hook.install()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'stand_in_engine\.utils'"):
        importlib.import_module('stand_in_engine.utils')


def test_error_inside_mmengine_stays_visible(table_module: Path) -> None:
    table_module.write_text('1 / 0\n')
    config_hook.install()
    with pytest.raises(ZeroDivisionError):
        importlib.import_module('stand_in_engine.utils')


def test_other_imports_are_left_alone(table_module: Path) -> None:
    config_hook.install()
    finder = sys.meta_path[0]
    assert finder.find_spec('json', None) is None


class _Editable:
    """The finder of an editable installation, whose files lie outside ``sys.path``."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_file_location(name, self.file) if name == 'stand_in_editable' else None


def test_module_of_another_finder_is_completed(
    table_module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / 'elsewhere.py'
    elsewhere.write_text('MODULE2PACKAGE = {}\n')
    monkeypatch.setattr(config_hook, 'TABLE_MODULE', 'stand_in_editable')
    sys.meta_path.append(_Editable(elsewhere))
    config_hook.install()
    # The copy that runs at the start of Python does the same once more.
    config_hook.install()
    module = importlib.import_module('stand_in_editable')
    monkeypatch.delitem(sys.modules, 'stand_in_editable')
    assert module.MODULE2PACKAGE == {'mmkd_plugin': 'mmkd_plugin'}


def test_importing_the_plugin_completes_the_table() -> None:
    table = importlib.import_module('mmengine.config.utils')
    assert isinstance(table, ModuleType)
    assert table.MODULE2PACKAGE['mmkd_plugin'] == 'mmkd_plugin'


def stock_runner() -> ModuleType:
    """A stand-in for the module of MMEngine's runner."""

    class Runner:
        cfg = dict(distill=dict(methods=dict(fgd=dict(type='FGD'))))

        def train(self) -> str:
            """Train."""
            return 'trained'

    module = ModuleType('stand_in_runner')
    vars(module)['Runner'] = Runner
    return module


def test_stock_runner_refuses_a_block() -> None:
    module = stock_runner()
    config_hook._look_before_training(module)
    with pytest.raises(DistillError, match='does not read it'):
        module.Runner().train()
    assert module.Runner.train.__doc__ == 'Train.'


def test_stock_runner_trains_where_the_plugin_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_hook, 'PACKAGE', 'deleted_package')
    module = stock_runner()
    config_hook._look_before_training(module)
    assert module.Runner().train() == 'trained'


def test_runner_is_completed_once() -> None:
    module = stock_runner()
    config_hook._look_before_training(module)
    train = module.Runner.train
    config_hook._look_before_training(module)
    assert module.Runner.train is train


def test_engine_without_a_runner_imports() -> None:
    config_hook._look_before_training(ModuleType('empty'))
    config_hook._look_before_building(ModuleType('empty'))
    config_hook._retell_errors(ModuleType('empty'))
