"""An installed plugin, normal or editable, is found by the stock tools of MMEngine and mim."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from _helpers.builds import run

BASE = 'mmkd_plugin::_base_/fgd/one_stage.py'
NAMED_CONFIG = 'fgd_retina_r34_to_r34.py'


@pytest.fixture(params=['normal', 'editable'])
def python(request: pytest.FixtureRequest) -> Path:
    """Each kind of installation in turn."""
    return request.getfixturevalue({'normal': 'python_with_wheel', 'editable': 'python_editable'}[request.param])


def test_stock_mmengine_resolves_the_base(python: Path, tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text(f"_base_ = ['{BASE}']\n")
    code = (
        'import sys; from mmengine.config import Config; cfg = Config.fromfile("mine.py");'
        'print(cfg.runner_type, sorted(name for name in sys.modules if name.split(".")[0] == "mmkd_plugin"))'
    )
    assert run(python, '-W', 'ignore', '-c', code, cwd=tmp_path) == 'mmkd_plugin.DistillRunner []'


def test_stock_mmengine_finds_the_package(python: Path, tmp_path: Path) -> None:
    code = (
        'import os.path as osp; from mmengine.utils import get_installed_path;'
        'path = get_installed_path("mmkd_plugin"); import mmkd_plugin;'
        'print(osp.samefile(path, osp.dirname(mmkd_plugin.__file__)), osp.isabs(path))'
    )
    assert run(python, '-W', 'ignore', '-c', code, cwd=tmp_path) == 'True True'


@pytest.mark.skipif(importlib.util.find_spec('mim') is None, reason='openmim is not installed')
def test_mim_train_finds_config_and_tool(python: Path, tmp_path: Path) -> None:
    code = (
        'from mim.commands.train import train;'
        f'print(train("mmkd_plugin", "{NAMED_CONFIG}", gpus=0, other_args=("--help",)))'
    )
    out = run(python, '-W', 'ignore', '-c', code, cwd=tmp_path)
    assert f'configs/coco_mini/{NAMED_CONFIG} instead' in out
    assert '--auto-scale-lr' in out
    assert "(True, 'Training finished successfully. ')" in out


def test_editable_installation_follows_the_working_tree(python_editable: Path, source: Path, tmp_path: Path) -> None:
    added = source / 'configs/_base_/fgd/added.py'
    added.write_text('answer = 42\n')
    (tmp_path / 'mine.py').write_text("_base_ = ['mmkd_plugin::_base_/fgd/added.py']\n")
    code = 'from mmengine.config import Config; print(Config.fromfile("mine.py").answer)'
    try:
        assert run(python_editable, '-W', 'ignore', '-c', code, cwd=tmp_path) == '42'
    finally:
        added.unlink()


def test_editable_installation_makes_the_links(python_editable: Path, source: Path) -> None:
    for name in ('configs', 'tools', 'model-index.yml'):
        assert os.readlink(source / 'mmkd_plugin/.mim' / name) == f'../../{name}'


def test_link_that_leads_nowhere_is_made_anew(tmp_path: Path) -> None:
    backend = tmp_path / 'setup/build_backend/mmkd_build_backend.py'
    backend.parent.mkdir(parents=True)
    backend.write_bytes((Path(__file__).parents[2] / 'setup/build_backend/mmkd_build_backend.py').read_bytes())
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'mmkd_plugin/.mim').mkdir(parents=True)
    link = tmp_path / 'mmkd_plugin/.mim/configs'
    link.symlink_to('/moved/away/configs')
    code = 'import mmkd_build_backend as backend; backend.link_shared_files(); backend.link_shared_files()'
    run(sys.executable, '-c', code, cwd=backend.parent)
    assert link.resolve() == tmp_path / 'configs'
