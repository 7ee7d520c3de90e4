"""A wheel of mmcv with its operators: a ready-made one where pip finds one that fits, else compiled here, once.

The source is compiled in a folder of the cache, file by file; an interrupted build goes on where it stopped. The
finished wheel stays in the cache for every later environment with the same Python, torch and machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

from console import SetupError, run, say
from environment import Environment
from mmcv_source import fetch_source

TARGET = """
import json, sys, sysconfig, torch
print(json.dumps({
    'python': 'cp%d%d' % sys.version_info[:2],
    'platform': sysconfig.get_platform().replace('-', '_').replace('.', '_'),
    'torch': torch.__version__,
    'cuda': torch.version.cuda or '',
    'gpu': torch.cuda.is_available(),
    'include': sysconfig.get_paths()['include'],
}))
"""
"""Asks an environment for what its torch and Python are."""

LOADS = """
import glob, importlib.util, json, os, runpy, torch
from importlib.machinery import ExtensionFileLoader
folder = next(iter(importlib.util.find_spec('mmcv').submodule_search_locations))
file = next(file for end in ('so', 'pyd') for file in glob.glob(os.path.join(folder, '_ext*.' + end)))
spec = importlib.util.spec_from_loader('_ext', ExtensionFileLoader('_ext', file))
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
version = runpy.run_path(os.path.join(folder, 'version.py'))['__version__']
print(json.dumps([version, module.get_compiling_cuda_version()]))
"""
"""Loads the operators alone, since mmcv itself imports packages that are installed after it."""


class Target(NamedTuple):
    """What the operators are compiled for, as the environment's own Python states it.

    Attributes:
        python: Such as ``cp311``.
        platform: Such as ``linux_x86_64``.
        torch: Such as ``2.13.0+cpu``.
        cuda: The CUDA version torch was built for, empty for a torch without.
        gpu: Whether torch sees a GPU.
        include: The folder with Python's headers.
    """

    python: str
    platform: str
    torch: str
    cuda: str
    gpu: bool
    include: str

    @property
    def wants_cuda(self) -> bool:
        """Whether the operators are compiled for the GPU: where there is one, unless the user says otherwise."""
        if os.environ.get('MMCV_OPS') == 'cpu' or not self.cuda:
            return False
        return self.gpu or os.environ.get('FORCE_CUDA') == '1'

    @property
    def device(self) -> str:
        """``cpu`` or, for instance, ``cuda12.6``."""
        return f'cuda{self.cuda}' if self.wants_cuda else 'cpu'

    @property
    def key(self) -> str:
        """Name of this combination in the cache."""
        return f'{self.python}-{self.platform}-torch{self.torch}-{self.device}'


def target_of(environment: Environment) -> Target:
    """What operators have to be made for in an environment.

    Raises:
        SetupError: If its torch does not import.
    """
    found = environment.ask(TARGET)
    if not found:
        raise SetupError(f'torch does not import; see "{environment.python} -c \'import torch\'".')
    return Target(**found)


def ensure_mmcv(environment: Environment, name: str, version: str, target: Target, cache: Path, lock: int) -> None:
    """Install mmcv with operators that load, unless it is there.

    Args:
        environment: With torch, setuptools and ninja installed.
        name: ``mmcv`` or ``onedl-mmcv``.
        version: Its version.
        target: What the operators are for.
        cache: The cache folder.
        lock: File descriptor that keeps other set-ups out while the compiler runs.

    Raises:
        SetupError: If a compiler is missing or the build fails.
    """
    # The same version may be there for another torch, or without operators.
    if environment.versions([name])[name] == version and loads(environment, version, target):
        return
    folder = cache / 'wheels' / target.key
    wheel = kept_wheel(folder, name, version)
    if wheel is None and ready_made(environment, name, version, target, folder):
        return
    if wheel is None:
        require_compiler(target)
        source = fetch_source(environment.python, name, version, cache / 'src' / target.key)
        wheel = _build(environment.python, f'{name} {version}', target, source, folder, lock)
    _install(environment, wheel)
    if not loads(environment, version, target):
        raise SetupError(
            f'The operators of {name} {version} do not load; delete {wheel} and run the same command again.'
        )


def loads(environment: Environment, version: str, target: Target) -> bool:
    """Whether the operators of the mmcv that is installed can be used for the target."""
    found = environment.ask(LOADS)
    if not found or found[0] != version:
        return False
    return not target.wants_cuda or found[1].split('.')[0] == target.cuda.split('.')[0]


def kept_wheel(folder: Path, name: str, version: str) -> Path | None:
    """The wheel of an earlier set-up; one that was cut off is removed."""
    for wheel in folder.glob(f'{name.replace("-", "_")}-{version}-*.whl'):
        if zipfile.is_zipfile(wheel):
            say(f'  {name} {version} with operators: found in {folder}.')
            return wheel
        wheel.unlink()
    return None


def ready_made(environment: Environment, name: str, version: str, target: Target, folder: Path) -> bool:
    """Install a wheel from the user's index, or from where ``MMCV_WHEELS`` points, if one is there that fits.

    Returns:
        Whether there is one; it is kept in ``folder``.
    """
    place = os.environ.get('MMCV_WHEELS', '')
    found = folder / 'ready-made'
    shutil.rmtree(found, ignore_errors=True)
    done = subprocess.run(
        [str(environment.python), '-m', 'pip', 'download', f'{name}=={version}', '--no-deps', '--only-binary', ':all:']
        + ['--disable-pip-version-check', '-d', str(found), *(['--find-links', place] if place else [])],
        capture_output=True,
    )
    wheel = next(found.glob('*.whl'), None)
    if done.returncode or wheel is None:
        return False
    _install(environment, wheel)
    if loads(environment, version, target):
        say(f'  {name} {version}: a ready-made wheel fits torch {target.torch}.')
        wheel.replace(folder / wheel.name)
        return True
    say(f'  {name} {version}: the ready-made wheel does not fit torch {target.torch}, so it is compiled.')
    shutil.rmtree(found)
    return False


def _install(environment: Environment, wheel: Path) -> None:
    environment.pip('mmcv: installing', 'install', '--force-reinstall', '--no-deps', wheel)


def require_compiler(target: Target) -> None:
    """Check what the build needs before it starts.

    Raises:
        SetupError: If the C++ compiler, Python's headers or, for the GPU, a fitting ``nvcc`` is missing.
    """
    if shutil.which(os.environ.get('CXX', 'c++')) is None and shutil.which('g++') is None:
        raise SetupError(
            'Building mmcv needs a C++ compiler; install one, for instance with "apt-get install g++", and run the '
            'same command again.'
        )
    if not Path(target.include, 'Python.h').is_file():
        raise SetupError(
            f"Building mmcv needs Python's headers, but {target.include} has no Python.h; install them, for instance "
            'with "apt-get install python3-dev", and run the same command again.'
        )
    if target.wants_cuda:
        nvcc = _nvcc()
        way_out = (
            f'install the CUDA toolkit {target.cuda} and set CUDA_HOME to it, or build the operators for the CPU only '
            'with MMCV_OPS=cpu.'
        )
        if nvcc is None:
            raise SetupError(
                f"torch {target.torch} runs on this machine's GPU, and mmcv's operators for it need the CUDA compiler "
                f'nvcc, which is not installed; {way_out}'
            )
        found = _nvcc_version(nvcc)
        if found and found.split('.')[0] != target.cuda.split('.')[0]:
            raise SetupError(
                f'torch {target.torch} was built for CUDA {target.cuda}, but {nvcc} is of CUDA {found}; {way_out}'
            )


def _nvcc() -> Path | None:
    homes = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH'), '/usr/local/cuda']
    candidates = [Path(home, 'bin/nvcc') for home in homes if home] + [Path(shutil.which('nvcc') or '/nonexistent')]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _nvcc_version(nvcc: Path) -> str:
    output = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    match = re.search(r'release (\d+\.\d+)', output)
    return match[1] if match else ''


def _build(python: Path, what: str, target: Target, source: Path, folder: Path, lock: int) -> Path:
    jobs = os.environ.get('MAX_JOBS') or str(parallel_jobs())
    log = source.parent / 'build.log'
    log.unlink(missing_ok=True)
    say(
        f'  {what}: compiling its operators for {target.device} with {jobs} jobs, since there is no ready-made wheel '
        'for this torch. It takes about ten minutes on two cores, happens once, and can be interrupted: the same '
        'command goes on where it stopped.'
    )
    env = {
        'MMCV_WITH_OPS': '1',
        'MAX_JOBS': jobs,
        # Half the time and a thirtieth of the size of the usual flags.
        'CFLAGS': os.environ.get('CFLAGS', '-O1 -g0 -w'),
        'PATH': f'{python.parent}{os.pathsep}{os.environ.get("PATH", "")}',
    }
    if target.wants_cuda:
        env['FORCE_CUDA'] = '1'
    else:
        env.update(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    out = source / 'dist'
    shutil.rmtree(out, ignore_errors=True)
    run(
        f'{what}: compiling',
        [python, 'setup.py', 'bdist_wheel', '-d', out],
        log,
        cwd=source,
        env=env,
        progress=lambda: compiled(source / 'build', log),
        keep_open=[lock],
    )
    built = next(out.glob('*.whl'))
    with zipfile.ZipFile(built) as packed:
        if not any(re.match(r'mmcv/_ext\..*\.?(so|pyd)$', name) for name in packed.namelist()):
            raise SetupError(f'{what} was built without its operators; see {log}.')
    folder.mkdir(parents=True, exist_ok=True)
    return built.replace(folder / built.name)


def compiled(build: Path, log: Path) -> str:
    """How far the build is, earlier tries included.

    Args:
        build: The ``build`` folder of the source tree, with ninja's list of files.
        log: Output of this try; ninja counts in it what was left to do.

    Returns:
        ``'12 of 77 files compiled'``, empty before ninja starts.
    """
    plan = next(build.glob('temp*/**/build.ninja'), None)
    with log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        counts = re.findall(rb'^\s*\[(\d+)/(\d+)\] ', file.read(), flags=re.MULTILINE)
    if plan is None or not counts:
        return ''
    total = len(re.findall(r'^build \S+\.o:', plan.read_text(encoding='utf-8'), flags=re.MULTILINE))
    finished, left = map(int, counts[-1])
    done = total - left + finished
    return f'{done} of {total} files compiled' + (', linking' if done == total else '')


def parallel_jobs() -> int:
    """One compiler for each core that this process may use, each with two gigabytes of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**30
    return max(1, min(cores, memory // 2))
