"""What is wrong with mmcv, or between packages of which each works alone, has one fault with its fix."""

from __future__ import annotations

import pytest
from _helpers.machines import Fake, missing, refused

from mmkd_plugin.compat.doctor import examine

MODULES = ('mmcv', 'mmcv._ext', 'mmcv.ops', 'mmengine.runner', 'mmdet.models', 'mmseg.models', 'mmrazor.models')
BUILD = (
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall --no-binary {0} {0}=='
)
NO_OPS = {'mmcv._ext': missing('mmcv._ext'), 'mmcv.ops': missing('mmcv._ext'), 'mmdet.models': missing('mmcv._ext')}
OTHER_TORCH = '_ext.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN2at'


@pytest.mark.parametrize(
    ('machine', 'problem', 'fix'),
    [
        pytest.param(
            Fake(broken=NO_OPS),
            'mmcv 2.1.0 was built without its operators',
            BUILD.format('mmcv') + '2.1.0',
            id='mmcv without ops',
        ),
        pytest.param(
            Fake(broken=NO_OPS, stack='forks'),
            'onedl-mmcv 2.3.6 was built without its operators',
            BUILD.format('onedl-mmcv') + '2.3.6',
            id='fork of mmcv without ops',
        ),
        pytest.param(
            Fake({'torch': '2.2.2', 'mmcv': '2.0.1'}, NO_OPS, stack='wheels'),
            'mmcv 2.0.1 was built without its operators',
            BUILD.format('mmcv') + '2.0.1',
            id='version that is there stays',
        ),
        pytest.param(
            Fake(broken=NO_OPS, stack='newest'),
            'mmcv 2.1.0 was built without its operators',
            '"python setup/bootstrap --mmcv-only" in a checkout of the plugin, which corrects the set-up of mmcv for '
            'torch 2.15.0',
            id='torch that needs C++20',
        ),
        pytest.param(
            Fake(broken=NO_OPS, stack='forks-newest'),
            'onedl-mmcv 2.3.6 was built without its operators',
            '"python setup/bootstrap --mmcv-only" in a checkout of the plugin, which corrects the set-up of '
            'onedl-mmcv for torch 2.15.0',
            id='forks on a torch that needs C++20',
        ),
        pytest.param(
            Fake(broken=NO_OPS, python='3.13.1'),
            'mmcv 2.1.0 was built without its operators',
            '"python setup/bootstrap --mmcv-only" in a checkout of the plugin, which corrects the set-up of mmcv for '
            'Python 3.13.1',
            id='Python that the set-up of mmcv fails on',
        ),
        pytest.param(
            Fake(broken=NO_OPS, python='3.13.1', stack='forks'),
            'onedl-mmcv 2.3.6 was built without its operators',
            BUILD.format('onedl-mmcv') + '2.3.6',
            id='that of the fork does not',
        ),
        pytest.param(
            Fake(broken=dict.fromkeys(MODULES[1:], OTHER_TORCH)),
            f'the operators of mmcv 2.1.0 do not fit torch 2.13.0 ({OTHER_TORCH})',
            BUILD.format('mmcv') + '2.1.0',
            id='mmcv of another torch',
        ),
        pytest.param(
            Fake(broken={'mmcv.ops': 'nms_forward miss in module _ext'}),
            'the operators of mmcv 2.1.0 do not fit torch 2.13.0 (nms_forward miss in module _ext)',
            BUILD.format('mmcv') + '2.1.0',
            id='operators of another mmcv',
        ),
        pytest.param(
            Fake(broken=dict.fromkeys(MODULES[2:], missing('sympy'))),
            "the operators of mmcv 2.1.0 cannot be imported (No module named 'sympy')",
            'pip install sympy',
            id='operators that need a package',
        ),
        pytest.param(
            Fake({'mmcv': '', 'mmcv-lite': '2.1.0'}, NO_OPS),
            'mmcv-lite 2.1.0 has no compiled operators',
            'pip uninstall -y mmcv-lite && ' + BUILD.format('mmcv') + '2.1.0',
            id='mmcv-lite',
        ),
        pytest.param(
            Fake({'mmcv': '', 'mmcv-full': '1.7.2'}, {'mmdet.models': refused('1.7.2')}),
            'mmcv-full 1.7.2 is mmcv 1',
            'pip uninstall -y mmcv-full && ' + BUILD.format('mmcv') + '2.1.0',
            id='mmcv-full',
        ),
        pytest.param(
            Fake({'onedl-mmcv': ''}, dict.fromkeys(MODULES, missing('mmcv')), stack='forks'),
            'onedl-mmcv is not installed',
            BUILD.format('onedl-mmcv') + '2.3.6',
            id='no mmcv among forks',
        ),
        pytest.param(
            Fake({'mmcv': '2.2.0'}, dict.fromkeys(('mmdet.models', 'mmseg.models'), refused('2.2.0'))),
            'mmdet 3.3.0 does not take mmcv 2.2.0',
            BUILD.format('mmcv') + '2.1.0',
            id='mmcv too new',
        ),
        pytest.param(
            Fake({'mmcv': '1.7.2'}, {**NO_OPS, 'mmdet.models': refused('1.7.2')}),
            'mmdet 3.3.0 does not take mmcv 1.7.2',
            BUILD.format('mmcv') + '2.1.0',
            id='mmcv too old and without ops',
        ),
        pytest.param(
            Fake({'mmcv': '2.2.0'}, {'mmdet.models': refused('2.2.0')}, stack='newest'),
            'mmdet 3.3.0 does not take mmcv 2.2.0',
            'pip uninstall -y mmcv, then "python setup/bootstrap --mmcv-only"',
            id='mmcv too new on a torch that needs C++20',
        ),
        pytest.param(
            Fake({'mmdet': '3.0.0'}, {'mmdet.models': refused('2.1.0', '>=2.0.0rc4, <2.1.0')}),
            'mmdet 3.0.0 does not take mmcv 2.1.0',
            'pip install mmdet==3.3.0',
            id='mmdet that takes older mmcv only',
        ),
        pytest.param(
            Fake({'mmcv': '2.2.0'}, {'mmdet.models': refused('2.2.0', '>=2.0.0rc4, <2.1.0')}),
            'mmdet 3.3.0 does not take mmcv 2.2.0',
            BUILD.format('mmcv') + '2.0.1',
            id='bounds of its own words',
        ),
        pytest.param(
            Fake(broken={'mmdet.models': refused('2.2.0')}),
            'mmdet 3.3.0 does not take mmcv 2.1.0 (MMCV==2.2.0 is used',
            BUILD.format('mmcv') + '2.1.0',
            id='other version in the folder than pip knows',
        ),
        pytest.param(
            Fake({'mmcv': '', 'onedl-mmcv': '2.3.6'}, {'mmseg.models': refused('2.3.6', '>=2.0.0rc4')}),
            'mmsegmentation 1.2.2 does not take onedl-mmcv 2.3.6',
            'pip uninstall -y onedl-mmcv && ' + BUILD.format('mmcv') + '2.1.0',
            id='fork of mmcv alone',
        ),
        pytest.param(
            Fake({'onedl-mmdetection': '', 'mmdet': '3.3.0'}, {'mmdet.models': refused('2.3.6')}, stack='forks'),
            'mmdet 3.3.0 does not take onedl-mmcv 2.3.6',
            'pip uninstall -y mmdet && pip install onedl-mmdetection==3.5.1',
            id='mmdet that is no fork',
        ),
        pytest.param(
            Fake(
                {'mmengine': '0.6.0'},
                {'mmdet.models': 'MMEngine==0.6.0 is used but incompatible. Please install mmengine>=0.7.1, <1.0.0'},
            ),
            'mmdet 3.3.0 does not take mmengine 0.6.0',
            'pip install mmengine==0.10.7',
            id='mmengine too old',
        ),
        pytest.param(
            Fake({'setuptools': '82.0.0', 'mmcv': ''}, {**NO_OPS, 'pkg_resources': missing('pkg_resources')}),
            'mmcv is not installed',
            "pip install 'setuptools>=77,<82' && " + BUILD.format('mmcv') + '2.1.0',
            id='no pkg_resources for the set-up of mmcv',
        ),
        pytest.param(
            Fake(cuda=('12.6', '')),
            'torch runs on CUDA 12.6, but the operators of mmcv were built for the CPU only',
            'install the CUDA toolkit 12.6 with nvcc, then ' + BUILD.format('mmcv') + '2.1.0',
            id='mmcv for the CPU',
        ),
        pytest.param(
            Fake(cuda=('12.6', '11.8'), stack='forks'),
            'the operators of onedl-mmcv were built for CUDA 11.8',
            BUILD.format('onedl-mmcv') + '2.3.6',
            id='other CUDA',
        ),
        pytest.param(
            Fake({'mmcv': '2.1.0'}, stack='forks'),
            'mmcv 2.1.0 and onedl-mmcv 2.3.6 lie in one folder, where the later has overwritten the other',
            'pip uninstall -y mmcv onedl-mmcv && ' + BUILD.format('onedl-mmcv') + '2.3.6',
            id='both of mmcv, other forks',
        ),
        pytest.param(
            Fake({'onedl-mmcv': '2.3.6'}, {**NO_OPS, 'mmdet.models': refused('2.3.6')}),
            'mmcv 2.1.0 and onedl-mmcv 2.3.6 lie in one folder',
            'pip uninstall -y mmcv onedl-mmcv && ' + BUILD.format('mmcv') + '2.1.0',
            id='both of mmcv, no other fork',
        ),
        pytest.param(
            Fake({'mmcv': '2.2.0', 'onedl-mmcv': '2.3.6'}),
            'mmcv 2.2.0 and onedl-mmcv 2.3.6 lie in one folder',
            'pip uninstall -y mmcv onedl-mmcv && ' + BUILD.format('mmcv') + '2.1.0',
            id='both of mmcv, that of OpenMMLab too new',
        ),
        pytest.param(
            Fake({'onedl-mmcv': '2.3.6'}, stack='newest-3.13'),
            'mmcv 2.1.0 and onedl-mmcv 2.3.6 lie in one folder',
            'pip uninstall -y mmcv onedl-mmcv, then "python setup/bootstrap --mmcv-only"',
            id='both of mmcv on a torch that needs C++20',
        ),
        pytest.param(
            Fake({'mmengine': '0.10.4'}, {'mmengine.runner': 'odd', 'mmdet.models': 'mmengine is odd'}, stack='forks'),
            'mmengine 0.10.4 and onedl-mmengine 0.10.12 lie in one folder',
            'pip uninstall -y mmengine onedl-mmengine && pip install --no-deps onedl-mmengine==0.10.12',
            id='both of mmengine',
        ),
    ],
)
def test_each_fault_is_one_line_with_its_fix(machine: Fake, problem: str, fix: str) -> None:
    faults = examine(machine).faults
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert problem in faults[0].problem
    assert fix in faults[0].fix
    assert '\n' not in str(faults[0])


def test_two_distributions_of_one_package_are_no_note() -> None:
    report = examine(Fake({'mmcv': '2.1.0', 'torch': '2.14.0'}, stack='forks'))
    assert len(report.faults) == 1
    assert report.notes == ['Other than in the nearest stack, and no fault by that alone: torch 2.14.0 (2.13.0).']
    assert next(row for row in report.rows if row.package == 'mmcv').verdict == 'not tested'
