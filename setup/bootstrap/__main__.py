"""Make the virtual environment that ``make demo`` and ``make test`` run in: ``python setup/bootstrap``.

Needs Python alone. It is safe to repeat: what is there stays, an interrupted run goes on where it stopped, and a
complete environment is recognised within a second.

Environment variables:
    TORCH: What pip shall install as torch, options included (``TORCH='torch==2.9.1'``). Without it, a torch in the
        environment within the tested range stays.
    MMCV_OPS: ``cpu`` compiles mmcv's operators for the CPU only, also where there is a GPU.
    MMKD_CACHE: Where mmcv is built and its wheel kept; ``~/.cache/mmkd_plugin`` by default.
    MAX_JOBS, CFLAGS, CUDA_HOME: As for every torch extension.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from console import SetupError, say, stop_on_termination  # noqa: E402
from environment import Environment, fingerprint, only_one  # noqa: E402
from mmcv_wheel import Target, ensure_wheel  # noqa: E402

from mmkd_plugin.compat.tested import TESTED_FILE, read_tested  # noqa: E402

# Of the torch that is installed by default; the plugin itself runs on 3.8 with an older one.
OLDEST_PYTHON = (3, 10)
BUILD_TOOLS = ('ninja',)
# "mim train" needs these; openmim's other dependencies would downgrade setuptools.
MIM = ('openmim',)
MIM_NEEDS = ('click', 'colorama', 'model-index', 'pandas', 'requests', 'rich', 'tabulate')
LINKS = ROOT / 'mmkd_plugin/.mim/configs'
INPUTS = (
    TESTED_FILE,
    ROOT / 'requirements/dev.txt',
    ROOT / 'setup.cfg',
    ROOT / 'setup/build_backend/mmkd_build_backend.py',
    ROOT / 'mmkd_plugin/compat/config_hook.py',
)

TARGET = """
import json, sys, sysconfig, torch
print(json.dumps({
    'python': f'cp{sys.version_info[0]}{sys.version_info[1]}',
    'platform': sysconfig.get_platform().replace('-', '_').replace('.', '_'),
    'torch': torch.__version__,
    'cuda': torch.version.cuda or '',
    'gpu': torch.cuda.is_available(),
    'include': sysconfig.get_paths()['include'],
}))
"""
MMCV_DEVICE = """
import json, mmcv
from mmcv.ops import get_compiling_cuda_version, nms
cuda = get_compiling_cuda_version()
print(json.dumps([mmcv.__version__, 'cpu' if cuda == 'not available' else f'cuda{cuda}']))
"""


def main() -> int:
    """Set up.

    Returns:
        The exit status.
    """
    if sys.version_info < OLDEST_PYTHON:
        say(
            f'error: set-up installs a torch that needs Python {".".join(map(str, OLDEST_PYTHON))} or later, and this '
            f'is {sys.version.split()[0]}; name another one, for instance with "make demo PYTHON=python3.11", or '
            'install the plugin, which needs 3.8, into an environment of your own.'
        )
        return 2
    environment = Environment(ROOT / '.venv', ROOT)
    torch, device = os.environ.get('TORCH', ''), os.environ.get('MMCV_OPS', '')
    wanted = fingerprint(INPUTS, torch, device)
    # The links are made by the installation, and are lost where ignored files of the working tree are removed.
    if environment.complete(wanted) and LINKS.exists():
        return 0
    stop_on_termination()
    cache = Path(os.environ.get('MMKD_CACHE') or Path.home() / '.cache/mmkd_plugin').expanduser().resolve()
    start = time.monotonic()
    say(f'Setting up {environment.folder}; every step is skipped where it was done before.')
    try:
        with only_one(cache) as lock:
            set_up(environment, cache, lock, torch)
            environment.remember(wanted, [*read_tested(), *MIM, 'mmkd_plugin'])
    except SetupError as error:
        say(f'error: {error}')
        return 1
    except KeyboardInterrupt:
        say('\nStopped. Run the same command again to go on.')
        return 130
    say(f'Ready after {time.monotonic() - start:.0f} s.')
    return 0


def set_up(environment: Environment, cache: Path, lock: int, torch: str) -> None:
    """Install everything, in an order in which nothing replaces what an earlier step needs.

    Args:
        environment: The virtual environment.
        cache: The cache folder.
        lock: Descriptor of the lock on the cache.
        torch: The user's choice of torch, may be empty.

    Raises:
        SetupError: If a step fails.
    """
    tested = read_tested()
    environment.ensure()
    environment.forget()
    install_torch(environment, torch)
    target = Target(**(environment.ask(TARGET) or _torch_fails(environment)))
    version = tested['mmcv'].spec.lstrip('=')
    if environment.ask(MMCV_DEVICE) != [version, target.device]:
        wheel = ensure_wheel(environment.python, version, target, cache, lock)
        # The same version may be there for another torch, or without operators.
        environment.pip('mmcv: installing', 'install', '--force-reinstall', '--no-deps', wheel)
    packages = [line.requirement for line in tested.values() if line.name != 'torch']
    environment.pip(
        'MMDetection, MMSegmentation, MMRazor and tools for tests: installing',
        'install',
        '-c',
        TESTED_FILE,
        '-r',
        ROOT / 'requirements/dev.txt',
        *packages,
        *declared(),
        *MIM_NEEDS,
    )
    environment.pip('openmim: installing', 'install', '--no-deps', *MIM)
    require_opencv(environment)
    if environment.ask(MMCV_DEVICE) != [version, target.device]:
        raise SetupError(f'mmcv does not import; see "{environment.python} tools/doctor.py".')
    environment.pip(
        'mmkd_plugin: installing', 'install', '--no-build-isolation', '--no-deps', '--force-reinstall', '-e', ROOT
    )


def install_torch(environment: Environment, choice: str) -> None:
    """Install what mmcv is built with; a torch in the tested range stays unless the user chose one.

    Args:
        environment: The virtual environment.
        choice: The user's choice, in pip's notation; may be empty.

    Raises:
        SetupError: If the torch that is there afterwards is outside the tested range.
    """
    tested = read_tested()
    present = environment.versions(['torch', 'setuptools', *BUILD_TOOLS])
    keep = not choice and present['torch'] and tested['torch'].allows(present['torch'])
    asked = re.search(r'torch==([\w.+]+)', choice)
    if asked and not tested['torch'].allows(asked[1]):
        raise _outside(asked[1])
    if not (keep and tested['setuptools'].allows(present['setuptools']) and all(present.values())):
        specs = shlex.split(choice) if choice else [] if keep else [tested['torch'].requirement]
        named = ' '.join(specs) or f'torch {present["torch"]} stays'
        environment.pip(
            f'torch and build tools ({named})', 'install', tested['setuptools'].requirement, *BUILD_TOOLS, *specs
        )
    version = environment.versions(['torch'])['torch']
    if not tested['torch'].allows(version):
        raise _outside(version or '(none)')


def declared() -> list[str]:
    """What the plugin itself declares; it is installed without its dependencies, so that nothing is replaced."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg', encoding='utf-8')
    return parser['options']['install_requires'].split()


def require_opencv(environment: Environment) -> None:
    """Take OpenCV without windows where the usual one misses the machine's graphics libraries.

    Raises:
        SetupError: If neither can be imported.
    """
    code = 'import cv2, json; print(json.dumps(cv2.__version__))'
    if environment.ask(code):
        return
    say('  OpenCV cannot be imported on this machine without a display; opencv-python-headless takes its place.')
    environment.pip('OpenCV: removing', 'uninstall', '-y', 'opencv-python')
    environment.pip(
        'OpenCV without windows: installing', 'install', '--force-reinstall', '--no-deps', 'opencv-python-headless'
    )
    if not environment.ask(code):
        raise SetupError(f'OpenCV cannot be imported; see "{environment.python} -c \'import cv2\'".')


def _outside(version: str) -> SetupError:
    torch = read_tested()['torch']
    return SetupError(
        f'torch {version} is outside the tested range {torch.spec}; choose one in it, for instance '
        f"TORCH='{torch.requirement}'."
    )


def _torch_fails(environment: Environment) -> dict:
    raise SetupError(f'torch is installed but does not import; see "{environment.python} -c \'import torch\'".')


if __name__ == '__main__':
    sys.exit(main())
