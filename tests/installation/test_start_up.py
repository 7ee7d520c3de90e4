"""What the installed start-up file does at every start of Python, and how it is kept from doing so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import mmdet
import pytest
from _helpers.builds import environment, pip, run
from _helpers.tiny import block, run_config

STOCK = Path(mmdet.__file__).parent / '.mim/tools/train.py'
LOADED = 'import sys; print(sorted(name for name in sys.modules if name.lstrip("_").startswith(("mm", "torch"))))'
HOOK = '_mmkd_plugin_config_hook'
RESOLVE = 'from mmengine.config import Config;print(Config.fromfile("mine.py").runner_type)'


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A folder with a config of a user."""
    (tmp_path / 'mine.py').write_text("_base_ = ['mmkd_plugin::_base_/fgd/one_stage.py']\n")
    return tmp_path


@pytest.fixture()
def uninstalled(wheel: Path, tmp_path: Path) -> Path:
    """An interpreter from which the plugin's modules were deleted, leaving the start-up file behind."""
    python = environment(tmp_path / 'venv')
    pip('--python', python, 'install', '--no-deps', '--ignore-installed', wheel, cwd=tmp_path)
    site = next((tmp_path / 'venv').glob('lib/python*/site-packages'))
    shutil.rmtree(site / 'mmkd_plugin')
    (site / '_mmkd_plugin_config_hook.py').unlink()
    return python


def test_start_of_python_survives_a_deleted_plugin(uninstalled: Path, tmp_path: Path) -> None:
    done = subprocess.run([uninstalled, '-c', 'print(1)'], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ('1\n', '')


def test_start_of_python_imports_the_hook_alone(python_with_wheel: Path, tmp_path: Path) -> None:
    assert run(python_with_wheel, '-c', LOADED, cwd=tmp_path) == f"['{HOOK}']"


def test_start_up_can_be_switched_off(python_with_wheel: Path, tmp_path: Path) -> None:
    assert run(python_with_wheel, '-c', LOADED, cwd=tmp_path, MMKD_NO_STARTUP='1') == '[]'


def test_empty_switch_is_none(python_with_wheel: Path, tmp_path: Path) -> None:
    assert run(python_with_wheel, '-c', LOADED, cwd=tmp_path, MMKD_NO_STARTUP='') == f"['{HOOK}']"


def test_stock_mmengine_does_not_know_the_plugin_where_it_is_switched_off(
    python_with_wheel: Path, folder: Path
) -> None:
    code = f'try:\n {RESOLVE}\nexcept Exception as error:\n print("mmkd_plugin" in str(error))'
    assert run(python_with_wheel, '-W', 'ignore', '-c', code, cwd=folder, MMKD_NO_STARTUP='1') == 'True'


def test_import_of_the_plugin_is_no_start_up(python_with_wheel: Path, folder: Path) -> None:
    code = f'import mmkd_plugin; {RESOLVE}'
    out = run(python_with_wheel, '-W', 'ignore', '-c', code, cwd=folder, MMKD_NO_STARTUP='1')
    assert out == 'mmkd_plugin.DistillRunner'


def test_stock_tool_refuses_a_block_that_is_written_by_hand(python_with_wheel: Path, tmp_path: Path) -> None:
    """Nothing of the config imports the plugin, so nobody but the start-up file can see that the block is not read."""
    cfg = run_config(tmp_path / 'runs', distill=block())
    cfg.pop('runner_type')
    cfg.dump(tmp_path / 'mine.py')
    environment = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'MMKD_'))}
    command = [str(python_with_wheel), '-W', 'ignore', str(STOCK), 'mine.py']
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and 'has a distill block, but its runner is Runner, which does not read it' in last
    assert not list(tmp_path.rglob('*.pth'))


def test_stock_tool_says_how_to_combine_recipes(python_with_wheel: Path, tmp_path: Path) -> None:
    recipes = [f'mmkd_plugin::_base_/{name}.py' for name in ('fgd/one_stage', 'pkd/neck')]
    (tmp_path / 'mine.py').write_text(f'_base_ = {recipes}\n')
    code = f'try:\n {RESOLVE}\nexcept Exception as error:\n print(error)'
    out = run(python_with_wheel, '-W', 'ignore', '-c', code, cwd=tmp_path)
    assert 'write the second method beside it' in out and '\n' not in out
