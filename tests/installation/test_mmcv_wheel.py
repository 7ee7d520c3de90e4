"""mmcv is built once, goes on after an interruption, and misses nothing that can be checked before."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture()
def headers(tmp_path: Path) -> Path:
    """A folder with Python's headers."""
    folder = tmp_path / 'include'
    folder.mkdir()
    (folder / 'Python.h').touch()
    return folder


def target(module: ModuleType, include: Path | str = '', cuda: str = '', gpu: bool = False) -> Any:
    """What mmcv is built for."""
    return module.Target('cp311', 'linux_x86_64', '2.13.0', cuda, gpu, str(include))


@pytest.mark.parametrize(
    ('cuda', 'gpu', 'ops', 'device'),
    [
        ('', False, '', 'cpu'),
        ('12.6', False, '', 'cpu'),
        ('12.6', True, '', 'cuda12.6'),
        ('12.6', True, 'cpu', 'cpu'),
    ],
)
def test_operators_follow_the_gpu_unless_the_user_says_otherwise(
    mmcv_wheel: ModuleType, monkeypatch: pytest.MonkeyPatch, cuda: str, gpu: bool, ops: str, device: str
) -> None:
    monkeypatch.setenv('MMCV_OPS', ops)
    assert target(mmcv_wheel, cuda=cuda, gpu=gpu).key == f'cp311-linux_x86_64-torch2.13.0-{device}'


def test_missing_compiler(mmcv_wheel: ModuleType, headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '')
    with pytest.raises(mmcv_wheel.SetupError, match=r'needs a C\+\+ compiler.*apt-get install g\+\+'):
        mmcv_wheel.require_compiler(target(mmcv_wheel, headers))


@pytest.fixture()
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH and holds a C++ compiler."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    _program(folder / 'c++', '')
    monkeypatch.setenv('PATH', str(folder))
    return folder


def _program(path: Path, output: str) -> None:
    path.write_text(f'#!/bin/sh\necho "{output}"\n')
    path.chmod(0o755)


def test_missing_headers(mmcv_wheel: ModuleType, compiler: Path, tmp_path: Path) -> None:
    with pytest.raises(mmcv_wheel.SetupError, match=r'no Python\.h.*apt-get install python3-dev'):
        mmcv_wheel.require_compiler(target(mmcv_wheel, tmp_path))


def test_gpu_without_nvcc(
    mmcv_wheel: ModuleType, compiler: Path, headers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'no_cuda'))
    monkeypatch.setattr(mmcv_wheel, '_nvcc', lambda: None)
    gpu = target(mmcv_wheel, headers, '12.6', gpu=True)
    with pytest.raises(
        mmcv_wheel.SetupError, match=r'nvcc, which is not installed; install the CUDA toolkit 12\.6.*MMCV_OPS=cpu\.$'
    ):
        mmcv_wheel.require_compiler(gpu)
    monkeypatch.setenv('MMCV_OPS', 'cpu')
    mmcv_wheel.require_compiler(gpu)


@pytest.mark.parametrize(('found', 'fits'), [('12.4', True), ('11.8', False)])
def test_nvcc_of_another_cuda(
    mmcv_wheel: ModuleType,
    compiler: Path,
    headers: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    found: str,
    fits: bool,
) -> None:
    (tmp_path / 'cuda/bin').mkdir(parents=True)
    _program(tmp_path / 'cuda/bin/nvcc', f'Cuda compilation tools, release {found}, V{found}.1')
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'cuda'))
    gpu = target(mmcv_wheel, headers, '12.6', gpu=True)
    if fits:
        mmcv_wheel.require_compiler(gpu)
    else:
        with pytest.raises(mmcv_wheel.SetupError, match=r'built for CUDA 12\.6, but .*nvcc is of CUDA 11\.8'):
            mmcv_wheel.require_compiler(gpu)


def test_finished_wheel_is_used_again(mmcv_wheel: ModuleType, tmp_path: Path) -> None:
    wanted = target(mmcv_wheel)
    wheel = tmp_path / 'wheels' / wanted.key / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, 'w') as packed:
        packed.writestr('mmcv/_ext.so', '')
    assert mmcv_wheel.ensure_wheel(Path('no-python'), '2.1.0', wanted, tmp_path, 0) == wheel


def test_damaged_wheel_is_built_again(mmcv_wheel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = target(mmcv_wheel)
    wheel = tmp_path / 'wheels' / wanted.key / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b'half a wheel')
    monkeypatch.setenv('PATH', '')
    with pytest.raises(mmcv_wheel.SetupError, match='compiler'):
        mmcv_wheel.ensure_wheel(Path('no-python'), '2.1.0', wanted, tmp_path, 0)
    assert not wheel.exists()


@pytest.fixture()
def fake_source(compiler: Path, headers: Path, tmp_path: Path) -> Path:
    """A cache with the source archive of an mmcv that builds at once; gives the cache."""
    tree = tmp_path / 'mmcv-2.1.0'
    tree.mkdir()
    (tree / 'setup.py').write_text(
        'import os, sys, zipfile\n'
        'assert os.environ["MMCV_WITH_OPS"] == "1" and os.environ["FORCE_CUDA"] == "0"\n'
        'os.makedirs(sys.argv[3])\n'
        'with zipfile.ZipFile(sys.argv[3] + "/mmcv-2.1.0-cp311-cp311-linux_x86_64.whl", "w") as wheel:\n'
        '    wheel.writestr(os.environ.get("BUILT", "mmcv/_ext.cpython-311.so"), "")\n'
    )
    folder = tmp_path / 'cache/src/cp311-linux_x86_64-torch2.13.0-cpu'
    folder.mkdir(parents=True)
    with tarfile.open(folder / 'mmcv-2.1.0.tar.gz', 'w:gz') as archive:
        archive.add(tree, 'mmcv-2.1.0')
    return tmp_path / 'cache'


def test_wheel_is_built_from_the_source_and_kept(mmcv_wheel: ModuleType, fake_source: Path, headers: Path) -> None:
    wanted = target(mmcv_wheel, headers)
    with open(os.devnull) as lock:
        wheel = mmcv_wheel.ensure_wheel(Path(sys.executable), '2.1.0', wanted, fake_source, lock.fileno())
    assert wheel.parent == fake_source / 'wheels' / wanted.key
    assert zipfile.is_zipfile(wheel)


def test_wheel_without_operators_is_refused(
    mmcv_wheel: ModuleType, fake_source: Path, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('BUILT', 'mmcv/__init__.py')
    wanted = target(mmcv_wheel, headers)
    with open(os.devnull) as lock, pytest.raises(mmcv_wheel.SetupError, match='built without its operators'):
        mmcv_wheel.ensure_wheel(Path(sys.executable), '2.1.0', wanted, fake_source, lock.fileno())
    assert not list(fake_source.glob('wheels/*/*.whl'))


def test_half_unpacked_source_is_unpacked_again(mmcv_wheel: ModuleType, fake_source: Path) -> None:
    folder = next((fake_source / 'src').iterdir())
    (folder / 'unpacking/mmcv-2.1.0').mkdir(parents=True)
    (folder / 'unpacking/mmcv-2.1.0/half').touch()
    source = mmcv_wheel._source(Path('no-python'), '2.1.0', folder)
    assert (source / 'setup.py').exists()
    assert not (source / 'half').exists()


def test_compiled_files_survive_the_next_try(mmcv_wheel: ModuleType, fake_source: Path) -> None:
    folder = next((fake_source / 'src').iterdir())
    source = mmcv_wheel._source(Path('no-python'), '2.1.0', folder)
    (source / 'build').mkdir()
    (source / 'build/a.o').touch()
    assert (mmcv_wheel._source(Path('no-python'), '2.1.0', folder) / 'build/a.o').exists()


def test_damaged_source_archive_is_removed(mmcv_wheel: ModuleType, fake_source: Path) -> None:
    folder = next((fake_source / 'src').iterdir())
    archive = folder / 'mmcv-2.1.0.tar.gz'
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(mmcv_wheel.SetupError, match='source archive of mmcv is damaged'):
        mmcv_wheel._source(Path('no-python'), '2.1.0', folder)
    assert not archive.exists()


def test_progress_counts_earlier_tries(mmcv_wheel: ModuleType, tmp_path: Path) -> None:
    plan = tmp_path / 'build/temp.linux/build.ninja'
    plan.parent.mkdir(parents=True)
    plan.write_text('rule compile\n' + ''.join(f'build /x/{i}.o: compile /x/{i}.cpp\n' for i in range(10)))
    log = tmp_path / 'build.log'
    log.write_text('running build_ext\n')
    assert mmcv_wheel.compiled(tmp_path / 'build', log) == ''
    log.write_text('[1/6] c++ -c a.cpp\n[2/6] c++ -c b.cpp\n')
    assert mmcv_wheel.compiled(tmp_path / 'build', log) == '6 of 10 files compiled'
    log.write_text('[6/6] c++ -c f.cpp\n')
    assert mmcv_wheel.compiled(tmp_path / 'build', log) == '10 of 10 files compiled, linking'
