"""An installed plugin, normal or editable, is found by the stock tools of MMEngine and mim."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREES = ('configs', 'mmkd_plugin', 'tools', 'requirements')
FILES = ('LICENSE', 'MANIFEST.in', 'Makefile', 'README.md', 'model-index.yml', 'pyproject.toml', 'setup.cfg')
BASE = 'mmkd_plugin::_base_/fgd/one_stage.py'
NAMED_CONFIG = 'fgd_retina_r34_to_r34.py'


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command, in an environment without the working tree, and give its output."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'PIP_REQUIRE'))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def pip(*arguments: str | Path, cwd: Path) -> str:
    """Run this interpreter's pip without the network."""
    return run(sys.executable, '-m', 'pip', '--disable-pip-version-check', *arguments, cwd=cwd)


def names(folder: Path) -> set[str]:
    """The files of a folder, relative to the one that holds it."""
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree, so that building leaves no trace in it."""
    folder = tmp_path_factory.mktemp('source')
    for name in TREES:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope='module')
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The normal wheel."""
    out = tmp_path_factory.mktemp('wheel')
    pip('wheel', '--no-deps', '--no-build-isolation', '-w', out, source, cwd=out)
    return next(out.glob('*.whl'))


def environment(folder: Path) -> Path:
    """A virtual environment that sees this interpreter's packages, but not the plugin if it is among them."""
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder.parent)
    site = next(folder.glob('lib/python*/site-packages'))
    site.joinpath('shared_packages.pth').write_text(sysconfig.get_paths()['purelib'] + '\n')
    return folder / 'bin/python'


@pytest.fixture(scope='module')
def python_with_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel installed."""
    python = environment(tmp_path_factory.mktemp('normal') / 'venv')
    pip('--python', python, 'install', '--no-deps', '--ignore-installed', wheel, cwd=wheel.parent)
    return python


@pytest.fixture(scope='module')
def python_editable(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with an editable installation."""
    python = environment(tmp_path_factory.mktemp('editable') / 'venv')
    pip(
        '--python',
        python,
        'install',
        '--no-deps',
        '--no-build-isolation',
        '--ignore-installed',
        '-e',
        source,
        cwd=python.parent,
    )
    return python


@pytest.fixture(params=['normal', 'editable'])
def python(request: pytest.FixtureRequest) -> Path:
    """Each kind of installation in turn."""
    return request.getfixturevalue({'normal': 'python_with_wheel', 'editable': 'python_editable'}[request.param])


def test_wheel_holds_configs_and_tools(wheel: Path, source: Path) -> None:
    prefix = 'mmkd_plugin/.mim/'
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix(prefix) for name in archive.namelist() if name.startswith(prefix)}
    expected = names(source / 'configs') | {'model-index.yml'}
    assert packed - names(source / 'tools') == expected
    assert {'tools/train.py', 'tools/test.py', 'tools/dist_train.sh'} <= packed


def test_wheel_lists_every_file_with_its_hash(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith('.dist-info/RECORD'))
        rows = {name: (digest, size) for name, digest, size in csv.reader(archive.read(record).decode().splitlines())}
        assert set(rows) == set(archive.namelist())
        for name, (digest, size) in rows.items():
            if name != record:
                content = archive.read(name)
                wanted = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')
                assert (digest, int(size)) == (f'sha256={wanted}', len(content)), name


def test_scripts_stay_executable(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo('mmkd_plugin/.mim/tools/dist_train.sh').external_attr >> 16 & 0o111


def test_nothing_of_the_user_is_replaced(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        message = Parser().parsestr(archive.read(metadata).decode())
    needed = [line for line in message.get_all('Requires-Dist', []) if 'extra ==' not in line]
    assert needed == ['joblib']


def test_wheel_from_the_source_archive_is_the_same(wheel: Path, source: Path, tmp_path: Path) -> None:
    code = 'import sys, mmkd_build_backend as backend; backend.build_sdist(sys.argv[1])'
    run(sys.executable, '-c', f'import sys; sys.path.insert(0, "setup/build_backend"); {code}', tmp_path, cwd=source)
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        assert not [member.name for member in archive.getmembers() if '/.mim' in member.name]
        for member in archive.getmembers():
            archive.extract(member, tmp_path / 'unpacked')
    out = tmp_path / 'out'
    pip('wheel', '--no-deps', '--no-build-isolation', '-w', out, next((tmp_path / 'unpacked').iterdir()), cwd=tmp_path)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(next(out.glob('*.whl'))) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


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


def test_editable_installation_restores_missing_links(source: Path, tmp_path: Path) -> None:
    tree = tmp_path / 'tree'
    shutil.copytree(source, tree, symlinks=True)
    shutil.rmtree(tree / 'mmkd_plugin/.mim')
    code = 'import mmkd_build_backend as backend; backend.link_shared_files(); backend.link_shared_files()'
    run(sys.executable, '-c', f'import sys; sys.path.insert(0, "setup/build_backend"); {code}', cwd=tree)
    assert (tree / 'mmkd_plugin/.mim/configs').resolve() == (tree / 'configs').resolve()
    assert not Path(os.readlink(tree / 'mmkd_plugin/.mim/configs')).is_absolute()


@pytest.fixture()
def uninstalled(wheel: Path, tmp_path: Path) -> Iterator[Path]:
    """An interpreter from which the plugin's modules were deleted, leaving the start-up file behind."""
    python = environment(tmp_path / 'venv')
    pip('--python', python, 'install', '--no-deps', '--ignore-installed', wheel, cwd=tmp_path)
    site = next((tmp_path / 'venv').glob('lib/python*/site-packages'))
    shutil.rmtree(site / 'mmkd_plugin')
    (site / '_mmkd_plugin_config_hook.py').unlink()
    yield python


def test_start_of_python_survives_a_deleted_plugin(uninstalled: Path, tmp_path: Path) -> None:
    done = subprocess.run([uninstalled, '-c', 'print(1)'], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ('1\n', '')


def test_start_of_python_imports_the_hook_alone(python_with_wheel: Path, tmp_path: Path) -> None:
    code = 'import sys; print(sorted(name for name in sys.modules if name.lstrip("_").startswith(("mm", "torch"))))'
    assert run(python_with_wheel, '-c', code, cwd=tmp_path) == "['_mmkd_plugin_config_hook']"
