"""Make the virtual environment that ``make demo`` and ``make test`` run in: ``python setup/bootstrap``.

Needs Python alone. It is safe to repeat: what is there stays, an interrupted run goes on where it stopped, and a
complete environment is recognised within a second.

Environment variables:
    STACK: The versions to install, a section of ``mmkd_plugin/compat/stacks.cfg``; its environment lies in
        ``.stacks/<name>``, that of the default stack in ``.venv``.
    STACKS: Another folder than ``.stacks`` for the environments of stacks.
    PYTHON: For a stack, the interpreter that its environment is made of; by default the machine is searched.
    TORCH: What pip shall install as torch, options included (``TORCH='torch==2.9.1'``). Without it, a torch that is in
        ``.venv`` already stays.
    MMCV_OPS: ``cpu`` compiles mmcv's operators for the CPU only, also where there is a GPU.
    MMCV_WHEELS: A folder or page of ready-made wheels of mmcv, beside pip's own index.
    MMKD_CACHE: Where mmcv is built and its wheel kept; ``~/.cache/mmkd_plugin`` by default.
    MAX_JOBS, CFLAGS, CUDA_HOME: As for every torch extension.
"""

from __future__ import annotations

import argparse
import configparser
import os
import shlex
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from console import SetupError, say, stop_on_termination  # noqa: E402
from environment import Environment, fingerprint, only_one  # noqa: E402
from interpreters import find_python, version_of  # noqa: E402
from mmcv_wheel import ensure_mmcv, target_of  # noqa: E402

from mmkd_plugin.compat.stacks import (  # noqa: E402
    DEFAULT,
    DISTRIBUTIONS,
    STACKS_FILE,
    Stack,
    distribution_of,
    nearest_stack,
    read_stacks,
    release,
    within,
)

# Of the torch that is installed by default; the plugin itself runs on 3.8 with an older one.
OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 0)
BUILD_TOOLS = ('ninja', 'wheel')
# "mim train" needs these; openmim's other dependencies would downgrade setuptools.
MIM = ('openmim',)
MIM_NEEDS = ('click', 'colorama', 'model-index', 'pandas', 'requests', 'rich', 'tabulate')
TORCHVISION = 'import json, torchvision; print(json.dumps(torchvision.__version__))'
LINKS = ROOT / 'mmkd_plugin/.mim/configs'
INPUTS = (
    STACKS_FILE,
    ROOT / 'requirements/dev.txt',
    ROOT / 'setup.cfg',
    ROOT / 'mmkd_plugin/version.py',
    ROOT / 'setup/build_backend/mmkd_build_backend.py',
    ROOT / 'mmkd_plugin/compat/config_hook.py',
)


def main() -> int:
    """Set up.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description='Make the virtual environment that everything here runs in.')
    parser.add_argument('--mmcv-only', action='store_true', help='compile mmcv into the environment that is active')
    parser.add_argument('--folder', type=Path, help='another folder for the environment')
    parser.add_argument(
        '--optional', action='store_true', help='install packages, too, that only some families of the zoos need'
    )
    arguments = parser.parse_args()
    stop_on_termination()
    try:
        if arguments.mmcv_only:
            return mmcv_only()
        return make(chosen_stack(), arguments.folder, arguments.optional)
    except SetupError as error:
        say(f'error: {error}')
        return 1
    except KeyboardInterrupt:
        say('\nStopped. Run the same command again to go on.')
        return 130


def chosen_stack() -> Stack:
    """The stack that ``STACK`` names.

    Raises:
        SetupError: If there is none of this name.
    """
    stacks, name = read_stacks(), os.environ.get('STACK') or DEFAULT
    if name not in stacks:
        raise SetupError(f'There is no stack "{name}"; choose one of {", ".join(stacks)}.')
    return stacks[name]


def environment_of(stack: Stack, folder: Path | None = None) -> Environment:
    """Where a stack is installed, and the Python that it is made with.

    Args:
        stack: The stack.
        folder: Another folder for it.

    Raises:
        SetupError: If the machine has no fitting Python.
    """
    if stack.name == DEFAULT and folder is None:
        return Environment(ROOT / '.venv', ROOT)
    folder = (folder or Path(os.environ.get('STACKS') or ROOT / '.stacks', stack.name)).expanduser().resolve()
    environment = Environment(folder, ROOT)
    if version_of(environment.python) == stack.python:
        return environment
    named = os.environ.get('PYTHON', '')
    python = named if version_of(named) == stack.python else find_python(stack.python, stack.name)
    return Environment(folder, ROOT, python)


def make(stack: Stack, folder: Path | None = None, optional: bool = False) -> int:
    """Make the environment of a stack, or find that it is complete.

    Args:
        stack: The stack.
        folder: Another folder for it.
        optional: Whether the optional packages of the stack are installed, too.

    Returns:
        The exit status.

    Raises:
        SetupError: If a step fails.
    """
    environment = environment_of(stack, folder)
    if environment.maker == sys.executable and stack.name == DEFAULT and sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f'set-up installs a torch that needs Python {".".join(map(str, OLDEST_PYTHON))} or later, and this is '
            f'{sys.version.split()[0]}; name another one, for instance with "make demo PYTHON=python3.11", choose an '
            'older stack with "STACK=docs-2023", or install the plugin, which needs 3.8, into an environment of your '
            'own.'
        )
    torch, device = os.environ.get('TORCH', ''), os.environ.get('MMCV_OPS', '')
    wanted = fingerprint(INPUTS, stack.name, torch, device)
    # The links are made by the installation, and are lost where ignored files of the working tree are removed.
    if environment.complete(wanted) and LINKS.exists():
        return install_optional(environment, stack) if optional else 0
    start = time.monotonic()
    named = '' if stack.name == DEFAULT else f' with the stack {stack.name}'
    say(f'Setting up {environment.folder}{named}; every step is skipped where it was done before.')
    with only_one(cache_folder()) as lock:
        set_up(environment, stack, cache_folder(), lock, torch)
        environment.remember(wanted, [*stack.packages, *MIM, 'mmkd_plugin'])
    say(f'Ready after {time.monotonic() - start:.0f} s.')
    return install_optional(environment, stack) if optional else 0


def install_optional(environment: Environment, stack: Stack) -> int:
    """Install the packages that only some families of the zoos need, one by one, and name those that pip cannot give.

    Returns:
        The exit status.
    """
    present = environment.versions([distribution_of(line) for line in stack.optional])
    for line in stack.optional:
        name = distribution_of(line)
        if present[name] and within(present[name], line[len(name) :]):
            continue
        try:
            environment.pip(
                f'{line}: installing', 'install', '-c', environment.folder / 'constraints.txt', *line.split()
            )
        except SetupError as error:
            say(f'  {line} is left out: {error}')
    # Its build for a torch with CUDA loads on no other one; a broken one would also keep others from being imported.
    if environment.versions(['torchvision'])['torchvision'] and not environment.ask(TORCHVISION):
        say('  torchvision is left out: its build does not fit this torch.')
        environment.pip('torchvision: removing', 'uninstall', '-y', 'torchvision')
    refuse_twins(environment)
    return 0


def mmcv_only() -> int:
    """Compile mmcv for the torch of the environment that is active and install it there, and nothing else.

    Returns:
        The exit status.

    Raises:
        SetupError: If there is no torch, or the build fails.
    """
    environment = Environment(Path(os.environ.get('VIRTUAL_ENV') or sys.prefix), ROOT)
    names = [name for names in DISTRIBUTIONS.values() for name in names]
    versions = environment.versions([*names, 'torch'])
    nearest = nearest_stack(versions, version_of(environment.python))
    name = nearest.distribution('mmcv')
    with only_one(cache_folder()) as lock:
        environment.pip('build tools', 'install', nearest.requirement('setuptools'), *BUILD_TOOLS)
        version = versions.get(name) or nearest.version(name)
        ensure_mmcv(environment, name, version, target_of(environment), cache_folder(), lock)
    say(f'{name} {version} works in {environment.folder}.')
    return 0


def cache_folder() -> Path:
    """Where mmcv is built and its wheel kept."""
    return Path(os.environ.get('MMKD_CACHE') or Path.home() / '.cache/mmkd_plugin').expanduser().resolve()


def set_up(environment: Environment, stack: Stack, cache: Path, lock: int, torch: str) -> None:
    """Install everything, in an order in which nothing replaces what an earlier step needs.

    Args:
        environment: The virtual environment.
        stack: What is installed.
        cache: The cache folder.
        lock: Descriptor of the lock on the cache.
        torch: The user's choice of torch, may be empty.

    Raises:
        SetupError: If a step fails.
    """
    environment.ensure()
    environment.forget()
    pins = environment.folder / 'constraints.txt'
    version = install_torch(environment, stack, torch)
    fixed = {'torch': f'torch=={version.partition("+")[0]}'}
    if version.partition('+')[0] != stack.version('torch'):
        fixed['torchvision'] = ''
    lines = [fixed.get(name, stack.requirement(name)) for name in stack.packages]
    pins.write_text('\n'.join(line for line in lines if line) + '\n', encoding='utf-8')
    target, mmcv = target_of(environment), stack.distribution('mmcv')
    ensure_mmcv(environment, mmcv, stack.version(mmcv), target, cache, lock)
    environment.pip(
        'MMDetection, MMSegmentation, MMRazor and tools for tests: installing',
        'install',
        '-c',
        pins,
        '-r',
        ROOT / 'requirements/dev.txt',
        *(line for line in lines if line and not line.startswith('torch==')),
        *declared(),
        *MIM_NEEDS,
    )
    environment.pip('openmim: installing', 'install', '--no-deps', *MIM)
    require_opencv(environment)
    ensure_mmcv(environment, mmcv, stack.version(mmcv), target, cache, lock)
    refuse_twins(environment)
    environment.pip(
        'mmkd_plugin: installing', 'install', '--no-build-isolation', '--no-deps', '--force-reinstall', '-e', ROOT
    )


def install_torch(environment: Environment, stack: Stack, choice: str) -> str:
    """Install what mmcv is built with; in the default stack, a torch that is there stays unless the user chose one.

    Args:
        environment: The virtual environment.
        stack: What is installed.
        choice: The user's choice, in pip's notation; may be empty.

    Returns:
        The version that is there afterwards.

    Raises:
        SetupError: If that is older than any that the plugin knows.
    """
    present = environment.versions(['torch', 'setuptools', *BUILD_TOOLS])
    keep = not choice and present['torch'] and (stack.name == DEFAULT or stack.allows('torch', present['torch']))
    if not (keep and stack.allows('setuptools', present['setuptools']) and all(present.values())):
        specs = shlex.split(choice) if choice else [] if keep else [stack.requirement('torch')]
        named = ' '.join(specs) or f'torch {present["torch"]} stays'
        numpy = [stack.requirement('numpy')] if 'numpy' in stack.packages else []
        tools = [stack.requirement('setuptools'), *BUILD_TOOLS, *numpy]
        environment.pip(f'torch and build tools ({named})', 'install', *tools, *specs)
    version = environment.versions(['torch'])['torch']
    if release(version) < OLDEST_TORCH:
        raise SetupError(
            f'torch {version or "(none)"} is older than {".".join(map(str, OLDEST_TORCH))}, the oldest that the plugin '
            f"runs on; choose a later one, for instance TORCH='{stack.requirement('torch')}'."
        )
    return version


def refuse_twins(environment: Environment) -> None:
    """Check that no package was installed under both of its names, which share one folder.

    Raises:
        SetupError: If one was.
    """
    versions = environment.versions([name for names in DISTRIBUTIONS.values() for name in names])
    for names in DISTRIBUTIONS.values():
        both = [name for name in names if versions.get(name)]
        if len(both) > 1:
            raise SetupError(
                f'{" and ".join(both)} are both installed in {environment.folder} and share one folder; delete that '
                'environment and run the same command again.'
            )


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
    version = environment.versions(['opencv-python'])['opencv-python']
    environment.pip('OpenCV: removing', 'uninstall', '-y', 'opencv-python')
    environment.pip(
        'OpenCV without windows: installing',
        'install',
        '--force-reinstall',
        '--no-deps',
        f'opencv-python-headless=={version}' if version else 'opencv-python-headless',
    )
    if not environment.ask(code):
        raise SetupError(f'OpenCV cannot be imported; see "{environment.python} -c \'import cv2\'".')


if __name__ == '__main__':
    sys.exit(main())
