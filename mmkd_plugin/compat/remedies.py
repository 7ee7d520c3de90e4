"""The commands that mend a machine. None replaces torch, and none installs a package over another one's folder."""

from __future__ import annotations

import re

from mmkd_plugin.compat.patient import Patient
from mmkd_plugin.compat.stacks import DISTRIBUTIONS, read_stacks, release, within

MMCV_OF_MMDET = '>=2.0.0,<2.2.0'
"""The versions of mmcv that mmdet 3.3 and mmsegmentation 1.2 accept; mmdet from 2.0.0rc4 on."""

OTHER_MMCV = {
    'mmcv-lite': 'has no compiled operators, which detectors need',
    'mmcv-full': 'is mmcv 1, which MMDetection 3 and MMSegmentation 1 do not take',
}
"""What else lies in mmcv's folder, and why that will not do."""

BUILD_MMCV = (
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall --no-binary {name} '
    '{name}=={version}'
)
BUILD_CORRECTED = (
    '"python setup/bootstrap --mmcv-only" in a checkout of the plugin, which corrects the set-up of {name} for {reason}'
)
CPP20_TORCH = (2, 15)
"""From this torch on its headers need C++20, and mmcv's set-up asks for C++17."""
STRICT_PYTHON = (3, 13)
"""From this Python on the set-up of OpenMMLab's mmcv does not find its own version."""

PROJECTS = {
    'PIL': 'Pillow',
    'cv2': 'opencv-python-headless',
    'distutils': 'setuptools',
    'pkg_resources': 'setuptools',
    'skimage': 'scikit-image',
    'sklearn': 'scikit-learn',
    'yaml': 'PyYAML',
}
"""The names that differ between ``import`` and ``pip install``."""


def install(patient: Patient, module: str) -> str:
    """Install a package in the version of the nearest stack, where it is missing or of another version."""
    return f'pip install {patient.stack.requirement(patient.stack.distribution(module))}'


def reinstall(patient: Patient, name: str) -> str:
    """Install the same version once more."""
    return f'pip install --force-reinstall --no-deps {name}=={patient.version(name)}'


def replace(patient: Patient, module: str) -> str:
    """Bring a package that does not work to what the nearest stack has."""
    name, fits = patient.distribution(module), patient.stack.distribution(module)
    if module == 'mmcv':
        return build_mmcv(patient, fits, patient.stack.version(fits))
    if name != fits:
        return f'{_uninstall(name)} && {install(patient, module)}'
    return reinstall(patient, name) if patient.stack.allows(name, patient.version(name)) else install(patient, module)


def keep_one(patient: Patient, module: str) -> str:
    """Of two distributions that share a folder, keep the one that fits to the other packages."""
    name = patient.distribution(module)
    version = patient.version(name)
    if module == 'mmcv':
        fits = name != 'mmcv' or within(version, MMCV_OF_MMDET)
        return build_mmcv(patient, name, version if fits else patient.stack.version(name))
    return f'{_uninstall(*patient.found(module))} && pip install --no-deps {name}=={version}'


def build_mmcv(patient: Patient, name: str = '', version: str = '') -> str:
    """Compile mmcv with its operators for the torch that is installed.

    Args:
        patient: The machine.
        name: The distribution; by default the one that is there, or that fits.
        version: By default the one that is there, or that of the nearest stack.

    Returns:
        The command. What lies in the same folder is uninstalled before.
    """
    fits = patient.stack.distribution('mmcv')
    name = name or patient.distribution('mmcv')
    reason = _why_pip_cannot(patient, name)
    if reason and name != fits:
        # The command that corrects builds what fits to the other packages.
        name, version = fits, ''
    version = version or patient.version(name) or patient.stack.version(name)
    there = [*patient.found('mmcv'), *filter(patient.version, OTHER_MMCV)]
    # It builds the version that is there once more, where there is one.
    other_version = bool(reason) and patient.version(name) not in ('', version)
    steps = [_uninstall(*there)] if other_version or {*there} - {name} else []
    if reason:
        return ', then '.join([*steps, BUILD_CORRECTED.format(name=name, reason=reason)])
    if name == 'mmcv' and patient.why_not('pkg_resources'):
        # The set-up of mmcv imports it.
        steps.append(setuptools(patient))
    return ' && '.join([*steps, BUILD_MMCV.format(name=name, version=version)])


def _why_pip_cannot(patient: Patient, name: str) -> str:
    """What keeps pip from compiling mmcv as it comes; empty where it can."""
    version = patient.version('torch') or patient.stack.version('torch')
    if release(version) >= CPP20_TORCH:
        return f'torch {version}'
    return f'Python {patient.python}' if name == 'mmcv' and release(patient.python) >= STRICT_PYTHON else ''


def accept(patient: Patient, module: str, base: str, why: str) -> str:
    """Bring two packages together, one of which refuses the other's version.

    Args:
        patient: The machine.
        module: The package that refuses.
        base: ``mmcv`` or ``mmengine``.
        why: In its own words.
    """
    stack, name = patient.stack, patient.distribution(base)
    # Its folder may hold another version than pip knows.
    named = re.search(r'==([\w.+]+)', why)
    version = named[1] if named else patient.version(name)
    own = name in stack.packages
    if patient.distribution(module) not in stack.packages or (own and stack.allows(name, version)):
        return replace(patient, module)
    if not own:
        return replace(patient, base)
    bounds = ','.join(f'{sign}{bound}' for sign, bound in re.findall(r'(>=|<=|<)\s*([\d.]+)', why))
    if base == 'mmcv' and '<' not in bounds:
        bounds = MMCV_OF_MMDET
    known = [other.version(name) for other in (stack, *read_stacks().values()) if name in other.packages]
    fitting = next((candidate for candidate in known if within(candidate, bounds)), stack.version(name))
    return build_mmcv(patient, name, fitting) if base == 'mmcv' else f'pip install {name}=={fitting}'


def mend_import(patient: Patient, module: str, why: str) -> str:
    """What helps where a package cannot be imported."""
    found = re.search(r"No module named '(\w+)'", why)
    lacking = found[1] if found else ''
    if lacking in DISTRIBUTIONS:
        return replace(patient, module) if patient.found(lacking) else missing(patient, lacking)
    return add(patient, lacking) if lacking else replace(patient, module)


def missing(patient: Patient, module: str) -> str:
    """Install one of the packages that the plugin builds on."""
    return build_mmcv(patient) if module == 'mmcv' else install(patient, module)


def add(patient: Patient, module: str) -> str:
    """Install a package that another one imports."""
    project = PROJECTS.get(module, module)
    if project == 'torchvision':
        # Without its dependencies, since it may ask for another torch, and pip would install that.
        return f"pip install --no-deps 'torchvision{_torchvision(patient.version('torch'))}'"
    spec = patient.stack.packages.get(project)
    return f"pip install '{project}{spec}'" if spec else f'pip install {project}'


def _torchvision(torch: str) -> str:
    """The versions of torchvision that a torch takes; from torch 2.14 on they are no longer made for one alone."""
    major, minor = (*release(torch), 0, 0)[:2]
    if (major, minor) >= (2, 14):
        return '>=0.29'
    return f'==0.{minor + (15 if major == 2 else 1)}.*'


def torch(patient: Patient, why: str) -> str:
    """What helps where torch is missing or cannot be imported; a torch that is there stays what it is."""
    version, stack = patient.version('torch'), patient.stack
    if not version:
        return f'pip install {stack.requirement("torch")}'
    lacking = re.search(r"No module named '(\w+)'", why)
    if lacking and lacking[1] != 'torch':
        return add(patient, lacking[1])
    origin = ', from the index that it came from' if '+' in version else ''
    library = re.match(r'(\S+\.so[.\d]*): cannot open', why)
    if library:
        # With what it depends on, where that library may lie; the newest setuptools must not come along.
        again = f"pip install --force-reinstall torch=={version} '{stack.requirement('setuptools')}'{origin}"
        return f'provide {library[1]}, or install the same torch again: {again}'
    return f'{reinstall(patient, "torch")}{origin}'


def numpy(patient: Patient, importable: bool) -> str:
    """What helps where numpy cannot be imported, or torch cannot use it; a torch of before numpy 2 cannot use that."""
    version = patient.version('numpy')
    if importable and release(version) >= (2,):
        return "pip install 'numpy<2'"
    return reinstall(patient, 'numpy') if version else add(patient, 'numpy')


def opencv(patient: Patient, remove: bool) -> str:
    """OpenCV without windows, in a version that the stack can use."""
    spec = patient.stack.packages.get('opencv-python', '')
    add_it = f"pip install 'opencv-python-headless{spec}'" if spec else 'pip install opencv-python-headless'
    return f'{_uninstall("opencv-python")} && {add_it}' if remove else add_it


def setuptools(patient: Patient) -> str:
    """A setuptools that still brings ``pkg_resources``."""
    there = patient.version('setuptools')
    ours = there and patient.stack.allows('setuptools', there)
    return reinstall(patient, 'setuptools') if ours else add(patient, 'setuptools')


def _uninstall(*names: str) -> str:
    return f'pip uninstall -y {" ".join(names)}'
