"""A wheel of mmcv with its operators: no index offers one for a recent torch, so it is compiled here, once.

The source is compiled in a folder of the cache, file by file; an interrupted build goes on where it stopped. The
finished wheel stays in the cache for every later environment with the same Python, torch and machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from console import SetupError, run, say


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


def ensure_wheel(python: Path, version: str, target: Target, cache: Path, lock: int) -> Path:
    """Find the wheel in the cache, or build it.

    Args:
        python: The environment's Python, with torch, setuptools and ninja installed.
        version: Version of mmcv.
        target: What to compile for.
        cache: The cache folder.
        lock: File descriptor that keeps other set-ups out while the compiler runs.

    Returns:
        The wheel.

    Raises:
        SetupError: If a compiler is missing or the build fails.
    """
    folder = cache / 'wheels' / target.key
    for wheel in folder.glob(f'mmcv-{version}-*.whl'):
        if zipfile.is_zipfile(wheel):
            say(f'  mmcv {version} with operators ({target.device}): found in {folder}.')
            return wheel
        wheel.unlink()
    require_compiler(target)
    source = _source(python, version, cache / 'src' / target.key)
    return _build(python, version, target, source, folder, lock)


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


def _source(python: Path, version: str, folder: Path) -> Path:
    """Download and unpack the source, unless an earlier try did."""
    source = folder / f'mmcv-{version}'
    if (source / 'setup.py').is_file():
        return source
    archive = folder / f'mmcv-{version}.tar.gz'
    if not archive.is_file():
        download = folder / 'download'
        run(
            f'mmcv {version}: fetching the source',
            [str(python), '-m', 'pip', 'download', f'mmcv=={version}', '--no-deps', '--no-binary', 'mmcv']
            + ['--no-build-isolation', '--disable-pip-version-check', '-d', str(download)],
            folder / 'build.log',
        )
        next(download.glob('mmcv-*.tar.gz')).replace(archive)
    # Unpacked under another name first: a folder with the final name is complete.
    unpacking = folder / 'unpacking'
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        with tarfile.open(archive) as packed:
            # Without the filter an archive could write elsewhere; the oldest releases of Python do not have it.
            if hasattr(tarfile, 'data_filter'):
                packed.extractall(unpacking, filter='data')
            else:
                packed.extractall(unpacking)
    except (tarfile.TarError, EOFError, OSError) as error:
        archive.unlink(missing_ok=True)
        raise SetupError(f'The source archive of mmcv is damaged ({error}); run the same command again.') from error
    shutil.rmtree(source, ignore_errors=True)
    (unpacking / f'mmcv-{version}').replace(source)
    return source


def _build(python: Path, version: str, target: Target, source: Path, folder: Path, lock: int) -> Path:
    jobs = os.environ.get('MAX_JOBS') or str(parallel_jobs())
    log = source.parent / 'build.log'
    log.unlink(missing_ok=True)
    say(
        f'  mmcv {version}: compiling its operators for {target.device} with {jobs} jobs, since no ready-made wheel '
        'fits this torch. It takes about ten minutes on two cores, happens once, and can be interrupted: the same '
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
        f'mmcv {version}: compiling',
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
            raise SetupError(f'mmcv was built without its operators; see {log}.')
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
