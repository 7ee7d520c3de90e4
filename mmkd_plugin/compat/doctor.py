"""What is installed, what is tested, and what will not work, each with its fix."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from mmkd_plugin.compat.tested import Tested, read_tested, within

PYTHON = '>=3.8'
"""What the package asks for; no version in between is known to fail."""

MMCV_OF_MMDET = '>=2.0.0,<2.2.0'
"""The versions of mmcv that mmdet 3.3 and mmsegmentation 1.2 accept; mmdet from 2.0.0rc4 on."""

BUILD_MMCV = (
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall --no-binary mmcv '
    'mmcv=={version}'
)


class Fault(NamedTuple):
    """Something that will not work, and the command or step that mends it."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f'{self.problem}; fix: {self.fix}'


class Row(NamedTuple):
    """One line of the table."""

    package: str
    installed: str
    tested: str
    verdict: str


class Report(NamedTuple):
    """The outcome of an examination.

    Attributes:
        rows: What is installed beside what is tested.
        faults: What will not work.
        notes: What is worth knowing and breaks nothing that distillation needs.
    """

    rows: list[Row]
    faults: list[Fault]
    notes: list[str]


class Machine:
    """The questions that the doctor asks; tests answer them differently."""

    def version(self, package: str) -> str:
        """The installed version of a package, empty without one."""
        try:
            return importlib.metadata.version(package)
        except Exception:  # A broken installation raises all sorts of errors.
            return ''

    def why_not(self, module: str) -> str:
        """Why a module cannot be imported, in one line; empty where it can."""
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter('ignore')
                if module.startswith('mmrazor'):
                    importlib.import_module('mmkd_plugin.compat').apply()
                importlib.import_module(module)
        except (Exception, SystemExit) as error:
            return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        return ''

    def torch_cuda(self) -> str:
        """The CUDA version torch was built for, where a GPU is there to use it; else empty."""
        try:
            torch = importlib.import_module('torch')
            return torch.version.cuda or '' if torch.cuda.is_available() else ''
        except Exception:
            return ''

    def mmcv_cuda(self) -> str:
        """The CUDA version mmcv's operators were built for; empty for the CPU."""
        try:
            found = importlib.import_module('mmcv.ops').get_compiling_cuda_version()
        except Exception:
            return ''
        return '' if found == 'not available' else found

    def lacking_in_torch(self) -> list[str]:
        """What MMRazor's quantization part misses in torch."""
        try:
            return importlib.import_module('mmkd_plugin.compat.quantization').missing_names()
        except Exception:
            return []

    def hook_runs(self) -> bool:
        """Whether this interpreter ran the plugin's start-up file."""
        return '_mmkd_plugin_config_hook' in sys.modules

    def hook_is_off(self) -> bool:
        """Whether the user keeps the plugin's start-up file from running."""
        return bool(os.environ.get('MMKD_NO_STARTUP'))


def examine(machine: Machine | None = None) -> Report:
    """Look at everything the plugin builds on.

    Args:
        machine: Who answers; by default this interpreter.

    Returns:
        The report. Nothing is raised: an import that fails becomes a fault.
    """
    machine = machine or Machine()
    tested = read_tested()
    faults: list[Fault] = []
    for check in (_torch, _setuptools, _mmcv, _devices, _opencv, _undeclared, _imports, _hook):
        faults += check(machine, tested)
    return Report(_rows(machine, tested), faults, list(_notes(machine)))


def _torch(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    version, wanted = machine.version('torch'), tested['torch']
    install = f'pip install {wanted.requirement}'
    if not version:
        yield Fault('torch is not installed', install)
        return
    why = machine.why_not('torch')
    if why:
        yield Fault(f'torch {version} cannot be imported ({why})', install)
    if not wanted.allows(version):
        yield Fault(f'torch {version} is outside {wanted.spec}', f'{install}, then build mmcv again')


def _setuptools(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    if machine.why_not('pkg_resources'):
        version = machine.version('setuptools')
        who = f'setuptools {version} brings no pkg_resources' if version else 'setuptools is not installed'
        yield Fault(f'{who}, which mmengine and mmcv import', f"pip install '{tested['setuptools'].requirement}'")


def _mmcv(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    version = machine.version('mmcv')
    build = BUILD_MMCV.format(version=tested['mmcv'].spec.lstrip('='))
    lite = machine.version('mmcv-lite')
    if lite:
        yield Fault(
            f'mmcv-lite {lite} has no compiled operators, which detectors need',
            f'pip uninstall mmcv-lite, then {build}',
        )
    elif not version:
        yield Fault('mmcv is not installed', build)
    else:
        if not within(version, MMCV_OF_MMDET):
            yield Fault(f'mmcv {version} is outside {MMCV_OF_MMDET}, which mmdet and mmsegmentation accept', build)
        why = machine.why_not('mmcv._ext')
        if "'mmcv._ext'" in why:
            yield Fault(f'mmcv {version} was built without its operators', build)
        elif why and "No module named 'torch'" not in why:
            yield Fault(f'the operators of mmcv {version} do not fit torch {machine.version("torch")} ({why})', build)


def _devices(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    wanted, built = machine.torch_cuda(), machine.mmcv_cuda()
    if wanted and wanted.split('.')[0] != built.split('.')[0] and not machine.why_not('mmcv._ext'):
        built = f'CUDA {built}' if built else 'the CPU only'
        yield Fault(
            f'torch runs on CUDA {wanted}, but the operators of mmcv were built for {built}',
            f'install the CUDA toolkit {wanted} with nvcc, then '
            + BUILD_MMCV.format(version=tested['mmcv'].spec.lstrip('=')),
        )


def _opencv(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    why = machine.why_not('cv2')
    if '.so' in why:
        yield Fault(
            f'OpenCV cannot be imported on this machine without a display ({why})',
            'pip uninstall opencv-python, then pip install opencv-python-headless',
        )
    elif why:
        yield Fault(f'OpenCV cannot be imported ({why})', 'pip install opencv-python-headless')


def _undeclared(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    for package, user in (('joblib', 'mmrazor'), ('ftfy', 'mmsegmentation'), ('regex', 'mmsegmentation')):
        if machine.version(user) and machine.why_not(package):
            yield Fault(f'{user} needs {package}, which is not installed', f'pip install {package}')


def _imports(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    # What is missing further down was named above, and would be repeated by everything that imports it.
    known = ["'torch'", "'pkg_resources'", "'mmcv", "'cv2'", "'joblib'", "'ftfy'", "'regex'", 'joblib, which', 'MMCV==']
    for package, module in (
        ('mmengine', 'mmengine.runner'),
        ('mmdet', 'mmdet.models'),
        ('mmsegmentation', 'mmseg.models'),
        ('mmrazor', 'mmrazor.models'),
    ):
        version, install = machine.version(package), f'pip install {tested[package].requirement}'
        if not version:
            if package in ('mmengine', 'mmrazor'):
                yield Fault(f'{package} is not installed', install)
                known += [f"'{package}", 'needs MMRazor']
            continue
        why = machine.why_not(module)
        if why and not any(words in why for words in known):
            yield Fault(f'{package} {version} cannot be imported ({why})', install)
            known.append(why)


def _hook(machine: Machine, tested: dict[str, Tested]) -> Iterator[Fault]:
    if not machine.hook_runs() and not machine.hook_is_off():
        yield Fault(
            'the start-up file of the plugin did not run, so that the stock tools do not know "mmkd_plugin::" bases',
            '"pip install --no-deps -e ." in the folder of the plugin',
        )


def _rows(machine: Machine, tested: dict[str, Tested]) -> list[Row]:
    python = platform.python_version()
    rows = [Row('python', python, PYTHON, 'ok' if within(python, PYTHON) else 'not tested')]
    for line in tested.values():
        version = machine.version(line.name)
        verdict = 'missing' if not version else 'ok' if line.allows(version) else 'not tested'
        rows.append(Row(line.name, version or '-', line.spec or 'any', verdict))
    return rows


def _notes(machine: Machine) -> Iterator[str]:
    for package, what in (('mmdet', 'detectors'), ('mmsegmentation', 'segmentors')):
        if not machine.version(package):
            yield f'{package} is not installed: {what} cannot be distilled.'
    lacking = machine.lacking_in_torch()
    if lacking:
        yield f'The quantization part of mmrazor is switched off: torch has no {lacking[0].split(".")[-1]}.'
    if machine.hook_is_off():
        yield (
            'MMKD_NO_STARTUP is set: the stock tools know no "mmkd_plugin::" bases and refuse the checkpoints of '
            'MMEngine on current torch; unset it where that matters.'
        )
    if not machine.version('openmim'):
        yield (
            '"mim train" needs openmim: pip install --no-deps openmim, then pip install click colorama model-index '
            'pandas requests rich tabulate (its other dependencies would downgrade setuptools).'
        )


def main() -> int:
    """Print the report.

    Returns:
        1 where something will not work, else 0.
    """
    report = examine()
    _print_table(report.rows)
    for fault in report.faults:
        print(f'FAULT  {fault}')
    for note in report.notes:
        print(f'note   {note}')
    if not report.faults:
        print('Everything that distillation needs works.')
    return 1 if report.faults else 0


def _print_table(rows: list[Row]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except Exception:
        for row in rows:
            print('{:16} {:14} {:14} {}'.format(*row))
        return
    table = Table('package', 'installed', 'tested', '')
    colours = {'ok': 'green', 'missing': 'red', 'not tested': 'yellow'}
    for row in rows:
        table.add_row(*row[:3], f'[{colours[row.verdict]}]{row.verdict}[/]')
    Console().print(table)
