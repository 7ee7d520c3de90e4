"""Whatever is wrong, no fix replaces torch, and none installs a package over the folder of another one."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest
from _helpers.machines import STACKS, Fake, missing, refused

from mmkd_plugin.compat.doctor import examine
from mmkd_plugin.compat.remedies import OTHER_MMCV
from mmkd_plugin.compat.stacks import DISTRIBUTIONS, Stack, nearest_stack, within

SHARED = {**DISTRIBUTIONS, 'mmcv': (*DISTRIBUTIONS['mmcv'], *OTHER_MMCV)}
"""The distributions that lie in one folder."""

PACKAGES = ('mmengine.runner', 'mmcv', 'mmcv._ext', 'mmcv.ops', 'mmdet.models', 'mmseg.models', 'mmrazor.models')

VERSIONS: list[dict[str, str]] = [
    {},
    {'torch': ''},
    {'torch': '2.4.1+cu121'},
    {'torch': '2.15.1'},
    {'torch': '3.0.0'},
    {'mmcv': '', 'onedl-mmcv': ''},
    {'mmcv': '2.2.0', 'onedl-mmcv': ''},
    {'mmcv': '', 'onedl-mmcv': '2.3.0'},
    {'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'},
    {'mmcv': '', 'onedl-mmcv': '', 'mmcv-lite': '2.1.0'},
    {'mmcv-full': '1.7.2'},
    {'mmengine': '', 'onedl-mmengine': ''},
    {'mmengine': '0.10.7', 'onedl-mmengine': '0.10.12'},
    {'mmdet': '3.0.0', 'onedl-mmdetection': ''},
    {'mmdet': '', 'onedl-mmdetection': '3.5.1'},
    {'mmsegmentation': '1.2.2', 'onedl-mmsegmentation': '1.4.2'},
    {'mmrazor': ''},
    {'setuptools': '', 'numpy': '2.3.0'},
]
BROKEN: list[dict[str, str]] = [
    {},
    dict.fromkeys(PACKAGES, 'something odd'),
    {module: f'odd {module}' for module in PACKAGES},
    dict.fromkeys(PACKAGES[2:], missing('mmcv._ext')),
    dict.fromkeys(PACKAGES[4:], refused('2.2.0')),
    dict.fromkeys(PACKAGES[5:], refused('2.3.6', '>=2.0.0rc4')),
    dict.fromkeys(PACKAGES[4:], 'MMEngine==0.6.0 is used but incompatible. Please install mmengine>=0.7.1, <1.0.0'),
    {'mmrazor.models': refused('2.3.6', '>=2.0.0rc1, <=2.1.0')},
    dict.fromkeys(('torch', *PACKAGES), 'libcudart.so.12: cannot open shared object file'),
    dict.fromkeys(('torch', *PACKAGES), 'something odd'),
    dict.fromkeys(PACKAGES, missing('torchvision')),
    dict.fromkeys(PACKAGES[1:], missing('mmengine')),
    {'mmrazor.models': missing('mmdet'), 'array': 'Numpy is not available'},
    {'bases': missing('pkg_resources'), 'pkg_resources': missing('pkg_resources'), 'cv2': 'libGL.so.1: cannot open'},
]


def follow(fix: str, installed: dict[str, str], stack: Stack) -> None:
    """Do to the installed versions what the commands of a fix do, and refuse what they must not do."""
    for step in re.split(r' && |, then |, from |: (?=pip )', fix):
        if '"python setup/bootstrap --mmcv-only"' in step:
            name = stack.distribution('mmcv')
            assert f'the set-up of {name} for' in step
            put(f'{name}=={installed.get(name) or stack.version(name)}', installed)
        command = re.match(r'(?:MMCV_WITH_OPS=1 )?pip (install|uninstall) (.*)', step)
        if not command:
            continue
        words = shlex.split(re.sub(r'--no-binary \S+', '', command[2]))
        for word in words:
            if command[1] == 'uninstall':
                installed.pop(word, None)
            elif not word.startswith('-'):
                assert '--no-deps' in words or not word.startswith('torchvision')
                put(word, installed)


def put(requirement: str, installed: dict[str, str]) -> None:
    """Install one package; torch stays what it is, and folders are free."""
    name, spec = re.match(r'([\w.-]+)(.*)', requirement).groups()  # type: ignore[union-attr]
    if name == 'torch':
        assert installed.get('torch') in (None, spec[2:]), f'{requirement} replaces {installed["torch"]}'
    for names in SHARED.values():
        if name in names:
            there = [other for other in names if other in installed and other != name]
            assert not there, f'{requirement} goes into the folder of {there}'
    if not within(installed.get(name, ''), spec or '>=0') or name not in installed:
        installed[name] = spec[2:] if spec.startswith('==') else '1'


@pytest.mark.parametrize('stack', STACKS)
@pytest.mark.parametrize('python', ['3.11.7', '3.13.1'])
def test_no_fix_replaces_torch_or_a_folder(python: str, stack: str) -> None:
    faults = 0
    for versions, broken in itertools.product(VERSIONS, BROKEN):
        machine = Fake(versions, broken, stack=stack, python=python)
        report = examine(machine)
        installed = {name: version for name, version in machine.versions.items() if version}
        torch = installed.get('torch')
        for fault in report.faults:
            faults += 1
            after = dict(installed)
            follow(fault.fix, after, report.stack)
            assert torch is None or after['torch'] == torch, fault
            assert '\n' not in str(fault)
    assert faults > len(VERSIONS) * len(BROKEN)


@pytest.mark.parametrize('stack', STACKS)
def test_fixes_that_are_followed_leave_one_mmcv_with_operators(stack: str) -> None:
    for versions in VERSIONS:
        machine = Fake(versions, dict.fromkeys(('mmcv._ext', 'mmcv.ops'), missing('mmcv._ext')), stack=stack)
        report = examine(machine)
        installed = {name: version for name, version in machine.versions.items() if version}
        fixes = [fault.fix for fault in report.faults if 'mmcv' in fault.problem]
        if machine.versions.get('torch'):
            assert any('MMCV_WITH_OPS=1' in fix or '--mmcv-only' in fix for fix in fixes), versions
        for fix in fixes:
            follow(fix, installed, report.stack)
        assert sum(name in installed for name in SHARED['mmcv']) == 1, (versions, fixes)


@pytest.mark.parametrize('stack', STACKS)
def test_command_that_corrects_sees_the_same_stack_once_others_are_gone(stack: str) -> None:
    seen = 0
    for versions in VERSIONS:
        machine = Fake(versions, {'mmcv._ext': missing('mmcv._ext')}, stack=stack)
        report = examine(machine)
        for fault in report.faults:
            if '--mmcv-only' in fault.fix:
                seen += 1
                gone = re.search(r'uninstall -y ([^,]*),', fault.fix)
                left = {**machine.versions, **dict.fromkeys(gone[1].split() if gone else [], '')}
                assert nearest_stack(left, machine.python()).distribution('mmcv') == report.stack.distribution('mmcv')
    assert seen


def test_simulation_sees_what_must_not_be() -> None:
    stack = STACKS['forks']
    for fix in (
        'pip install torch==2.13.0',
        'pip install mmcv==2.1.0',
        'pip uninstall -y mmcv && pip install mmcv==2.1.0',
        'pip install torchvision==0.20.1',
        'build, then MMCV_WITH_OPS=1 pip install --no-binary mmcv mmcv==2.1.0',
    ):
        with pytest.raises(AssertionError):
            follow(fix, {'torch': '2.5.1', 'onedl-mmcv': '2.3.6'}, stack)
    follow('pip uninstall -y onedl-mmcv && pip install mmcv==2.1.0', {'onedl-mmcv': '2.3.6'}, stack)
