"""mmcv is built once, goes on after an interruption, and misses nothing that can be checked before."""

from __future__ import annotations

import os
import sys
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


class Machine:
    """An environment that notes what is installed; ``device`` is what loads then, empty for nothing.

    Its pip finds a ready-made wheel where there is ``offered``.
    """

    def __init__(self, folder: Path, device: str = 'not available', offered: str = '') -> None:
        self.device, self.installed = device, []  # type: ignore[var-annotated]
        # Stands in for Python: answers pip's download with a wheel, or with an error.
        give = f'mkdir -p "$last"; printf PK > "$last/{offered}"' if offered else 'exit 1'
        self.python = folder / 'python'
        self.python.write_text(f'#!/bin/sh\nfor word in "$@"; do last="$word"; done\n{give}\n')
        self.python.chmod(0o755)

    def versions(self, names: list[str]) -> dict[str, str]:
        return {name: '2.1.0' if self.installed else '' for name in names}

    def ask(self, code: str) -> list[str] | None:
        return ['2.1.0', self.device] if self.installed and self.device else None

    def pip(self, title: str, *arguments: Any) -> None:
        self.installed.append(Path(arguments[-1]))


WHEEL = 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'


def keep_wheel(folder: Path, wanted: Any, complete: bool = True) -> Path:
    """Put a wheel into the cache."""
    wheel = folder / 'wheels' / wanted.key / WHEEL
    wheel.parent.mkdir(parents=True)
    if complete:
        with zipfile.ZipFile(wheel, 'w') as packed:
            packed.writestr('mmcv/_ext.so', '')
    else:
        wheel.write_bytes(b'half a wheel')
    return wheel


def test_finished_wheel_is_used_again(mmcv_wheel: ModuleType, tmp_path: Path) -> None:
    wanted, machine = target(mmcv_wheel), Machine(tmp_path)
    wheel = keep_wheel(tmp_path, wanted)
    mmcv_wheel.ensure_mmcv(machine, 'mmcv', '2.1.0', wanted, tmp_path, 0)
    assert machine.installed == [wheel]
    mmcv_wheel.ensure_mmcv(machine, 'mmcv', '2.1.0', wanted, tmp_path, 0)
    assert machine.installed == [wheel]


def test_damaged_wheel_is_built_again(mmcv_wheel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = target(mmcv_wheel)
    wheel = keep_wheel(tmp_path, wanted, complete=False)
    monkeypatch.setenv('PATH', '')
    with pytest.raises(mmcv_wheel.SetupError, match='compiler'):
        mmcv_wheel.ensure_mmcv(Machine(tmp_path), 'mmcv', '2.1.0', wanted, tmp_path, 0)
    assert not wheel.exists()


def test_wheel_that_does_not_load_is_told(mmcv_wheel: ModuleType, tmp_path: Path) -> None:
    wanted = target(mmcv_wheel)
    keep_wheel(tmp_path, wanted)
    with pytest.raises(mmcv_wheel.SetupError, match=r'operators of mmcv 2\.1\.0 do not load; delete .*whl'):
        mmcv_wheel.ensure_mmcv(Machine(tmp_path, device=''), 'mmcv', '2.1.0', wanted, tmp_path, 0)


def test_ready_made_wheel_that_fits_is_used_and_kept(
    mmcv_wheel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, machine = target(mmcv_wheel), Machine(tmp_path, offered=WHEEL)
    mmcv_wheel.ensure_mmcv(machine, 'mmcv', '2.1.0', wanted, tmp_path, 0)
    assert machine.installed[0].name == WHEEL
    assert (tmp_path / 'wheels' / wanted.key / WHEEL).is_file()


def test_ready_made_wheel_of_another_torch_is_passed_over(
    mmcv_wheel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, machine = target(mmcv_wheel), Machine(tmp_path, device='', offered=WHEEL)
    monkeypatch.setattr(mmcv_wheel, 'require_compiler', lambda target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        mmcv_wheel.ensure_mmcv(machine, 'mmcv', '2.1.0', wanted, tmp_path, 0)
    assert 'does not fit torch 2.13.0, so it is compiled' in capsys.readouterr().out
    assert not list(tmp_path.glob('wheels/**/*.whl'))


@pytest.mark.parametrize(('device', 'fits'), [('12.4', True), ('11.8', False), ('not available', False)])
def test_gpu_wants_operators_of_its_cuda(mmcv_wheel: ModuleType, tmp_path: Path, device: str, fits: bool) -> None:
    machine = Machine(tmp_path, device)
    machine.installed.append(Path('x'))
    assert mmcv_wheel.loads(machine, '2.1.0', target(mmcv_wheel, cuda='12.6', gpu=True)) is fits
    assert mmcv_wheel.loads(machine, '2.1.0', target(mmcv_wheel))


SETUP = (
    'import os, sys, zipfile\n'
    'assert os.environ["MMCV_WITH_OPS"] == "1" and os.environ["FORCE_CUDA"] == "0"\n'
    'os.makedirs(sys.argv[3])\n'
    'with zipfile.ZipFile(sys.argv[3] + "/mmcv-2.1.0-cp311-cp311-linux_x86_64.whl", "w") as wheel:\n'
    '    wheel.writestr(os.environ.get("BUILT", "mmcv/_ext.cpython-311.so"), "")\n'
)


@pytest.fixture()
def source(tmp_path: Path, compiler: Path, headers: Path) -> Path:
    """The source of an mmcv that builds at once."""
    folder = tmp_path / 'src/mmcv-2.1.0'
    folder.mkdir(parents=True)
    (folder / 'setup.py').write_text(SETUP)
    return folder


def build(module: ModuleType, wanted: Any, source: Path, folder: Path) -> Path:
    """Build it."""
    with open(os.devnull) as lock:
        return module._build(Path(sys.executable), 'mmcv 2.1.0', wanted, source, folder, lock.fileno())


def test_wheel_is_built_from_the_source_and_kept(
    mmcv_wheel: ModuleType, source: Path, headers: Path, tmp_path: Path
) -> None:
    wheel = build(mmcv_wheel, target(mmcv_wheel, headers), source, tmp_path / 'kept')
    assert wheel.parent == tmp_path / 'kept'
    assert zipfile.is_zipfile(wheel)


def test_wheel_without_operators_is_refused(
    mmcv_wheel: ModuleType, source: Path, headers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('BUILT', 'mmcv/__init__.py')
    with pytest.raises(mmcv_wheel.SetupError, match='built without its operators'):
        build(mmcv_wheel, target(mmcv_wheel, headers), source, tmp_path / 'kept')
    assert not list(tmp_path.glob('kept/*.whl'))


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
