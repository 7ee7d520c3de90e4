"""The doctor names each thing that will not work, once, with its fix; a version that was not tried is no such thing."""

from __future__ import annotations

import pytest
from _helpers.machines import STACKS, Fake, missing, refused

from mmkd_plugin.compat.doctor import Report, Row, examine

MODULES = ('mmcv', 'mmcv._ext', 'mmcv.ops', 'mmengine.runner', 'mmdet.models', 'mmseg.models', 'mmrazor.models')
NO_OPS = {'mmcv._ext': missing('mmcv._ext'), 'mmcv.ops': missing('mmcv._ext'), 'mmdet.models': missing('mmcv._ext')}


def row(report: Report, package: str) -> Row:
    return next(row for row in report.rows if row.package == package)


@pytest.mark.parametrize('stack', STACKS)
def test_machine_with_a_stack_has_neither_faults_nor_notes(stack: str) -> None:
    report = examine(Fake(stack=stack))
    assert report.stack.name == stack
    assert report.faults == []
    assert report.notes == []
    assert {row.verdict for row in report.rows} == {'ok'}


@pytest.mark.parametrize('stack', STACKS)
@pytest.mark.parametrize('torch', ['2.0.0', '2.5.1', '2.14.0', '2.99.0', '3.1.0+cu140'])
def test_torch_that_was_not_tried_is_a_note(torch: str, stack: str) -> None:
    report = examine(Fake({'torch': torch}, stack=stack))
    assert report.faults == []
    if torch != report.stack.version('torch'):
        assert row(report, 'torch').verdict == 'not tested'
        assert f'torch {torch} ({report.stack.version("torch")})' in report.notes[0]


@pytest.mark.parametrize(
    ('versions', 'package', 'note'),
    [
        ({'mmdet': '3.2.0'}, 'mmdet', 'mmdet 3.2.0 (3.3.0)'),
        ({'mmcv': '2.2.0'}, 'mmcv', 'mmcv 2.2.0 (2.1.0)'),
        ({'setuptools': '82.0.0'}, 'setuptools', 'setuptools 82.0.0 (>=77,<82)'),
        ({'mmcv': '', 'onedl-mmcv': '2.3.6'}, 'mmcv', 'onedl-mmcv 2.3.6 (mmcv 2.1.0)'),
    ],
)
def test_other_version_is_marked_and_no_fault(versions: dict[str, str], package: str, note: str) -> None:
    report = examine(Fake(versions))
    assert report.faults == []
    assert row(report, package).verdict == 'not tested'
    assert report.notes == [f'Other than in the nearest stack, and no fault by that alone: {note}.']


def test_other_python_is_a_note() -> None:
    report = examine(Fake(python='3.14.0', stack='default'))
    assert report.faults == []
    assert row(report, 'python').verdict == 'not tested'
    assert 'python 3.14.0 (3.11)' in report.notes[0]


def test_python_below_the_floor_is_a_fault() -> None:
    assert [fault.problem for fault in examine(Fake(python='3.7.16')).faults] == ['Python 3.7.16 is outside >=3.8']
    assert examine(Fake(python='3.8.0')).faults == []


def test_rows_name_the_distribution_that_is_installed() -> None:
    report = examine(Fake(stack='forks'))
    assert row(report, 'mmseg') == Row('mmseg', 'onedl-mmsegmentation', '1.4.2', '1.4.2', 'ok')
    assert row(report, 'joblib') == Row('joblib', 'joblib', '1.0', 'any', 'ok')
    assert report.rows[0] == Row('python', 'python', '3.11.7', '3.11', 'ok')


def test_what_is_missing_has_the_name_that_would_fit() -> None:
    report = examine(Fake({'onedl-mmdetection': ''}, stack='forks'))
    assert row(report, 'mmdet') == Row('mmdet', 'onedl-mmdetection', '', '3.5.1', 'missing')
    assert report.notes == ['onedl-mmdetection is not installed: detectors cannot be distilled.']


def test_opencv_without_windows_does_as_well() -> None:
    report = examine(Fake({'opencv-python': '', 'opencv-python-headless': '4.10.0'}, stack='wheels'))
    assert row(report, 'opencv-python') == Row('opencv-python', 'opencv-python-headless', '4.10.0', '<4.12', 'ok')


@pytest.mark.parametrize(
    ('machine', 'problem', 'fix'),
    [
        pytest.param(
            Fake(broken=dict.fromkeys(MODULES, missing('addict'))),
            "mmengine 0.10.7 cannot be imported (No module named 'addict')",
            'pip install addict',
            id='package of a package',
        ),
        pytest.param(
            Fake({'setuptools': '82.0.0'}, {'bases': missing('pkg_resources')}),
            'setuptools 82.0.0 brings no pkg_resources, which mmengine 0.10.7 imports',
            "pip install 'setuptools>=77,<82'",
            id='no pkg_resources for bases',
        ),
        pytest.param(
            Fake({'setuptools': ''}, dict.fromkeys(('bases', *MODULES), missing('pkg_resources')), stack='docs-2023'),
            'setuptools is not installed, which mmengine 0.8.4 imports',
            "pip install 'setuptools>=64,<76'",
            id='no setuptools',
        ),
        pytest.param(
            Fake(broken={'mmrazor.models': 'something odd'}),
            'mmrazor 1.0.0 cannot be imported (something odd)',
            'pip install --force-reinstall --no-deps mmrazor==1.0.0',
            id='mmrazor not importable',
        ),
        pytest.param(
            Fake({'mmdet': '3.0.0'}, {'mmdet.models': 'something odd'}),
            'mmdet 3.0.0 cannot be imported (something odd)',
            'pip install mmdet==3.3.0',
            id='mmdet of another version not importable',
        ),
        pytest.param(
            Fake({'onedl-mmsegmentation': '', 'mmsegmentation': '1.2.2'}, {'mmseg.models': 'odd'}, stack='forks'),
            'mmsegmentation 1.2.2 cannot be imported (odd)',
            'pip uninstall -y mmsegmentation && pip install onedl-mmsegmentation==1.4.2',
            id='mmseg that is no fork not importable',
        ),
        pytest.param(
            Fake({'mmdet': ''}, {'mmrazor.models': missing('mmdet')}),
            "mmrazor 1.0.0 cannot be imported (No module named 'mmdet')",
            'pip install mmdet==3.3.0',
            id='mmrazor that needs mmdet',
        ),
        pytest.param(
            Fake({'torch': '2.5.1'}, {'mmdet.models': missing('torchvision')}),
            "mmdet 3.3.0 cannot be imported (No module named 'torchvision')",
            "pip install --no-deps 'torchvision==0.20.*'",
            id='torchvision',
        ),
        pytest.param(
            Fake({'torch': '2.15.0'}, {'mmdet.models': missing('torchvision')}),
            "mmdet 3.3.0 cannot be imported (No module named 'torchvision')",
            "pip install --no-deps 'torchvision>=0.29'",
            id='torchvision that is made for several torches',
        ),
        pytest.param(
            Fake({'opencv-python': '4.10'}, {'cv2': 'libGL.so.1: cannot open shared object file'}),
            'OpenCV cannot be imported on this machine without a display (libGL.so.1',
            'pip uninstall -y opencv-python && pip install opencv-python-headless',
            id='no libGL',
        ),
        pytest.param(
            Fake({'opencv-python': ''}, dict.fromkeys(('cv2', *MODULES), missing('cv2')), stack='wheels'),
            "OpenCV cannot be imported (No module named 'cv2')",
            "pip install 'opencv-python-headless<4.12'",
            id='no OpenCV',
        ),
        pytest.param(
            Fake({'numpy': '2.2.0'}, {'array': 'Numpy is not available'}, stack='wheels'),
            'torch 2.1.2 cannot use numpy 2.2.0 (Numpy is not available)',
            "pip install 'numpy<2'",
            id='numpy of after torch',
        ),
        pytest.param(
            Fake({'numpy': ''}, dict.fromkeys(('numpy', 'array', 'cv2', *MODULES), missing('numpy'))),
            "numpy cannot be imported (No module named 'numpy')",
            'pip install numpy',
            id='no numpy',
        ),
        pytest.param(
            Fake({'joblib': ''}, {'joblib': missing('joblib'), 'mmrazor.models': missing('joblib')}),
            'mmrazor needs joblib, which is not installed',
            'pip install joblib',
            id='joblib',
        ),
        pytest.param(
            Fake(broken={'ftfy': missing('ftfy'), 'mmseg.models': missing('ftfy')}),
            'mmsegmentation needs ftfy',
            'pip install ftfy',
            id='ftfy',
        ),
        pytest.param(
            Fake(broken={'regex': missing('regex'), 'mmseg.models': missing('regex')}, stack='forks'),
            'onedl-mmsegmentation needs regex',
            'pip install regex',
            id='regex',
        ),
        pytest.param(
            Fake({'mmrazor': ''}, {'mmrazor.models': missing('mmrazor')}),
            'mmrazor is not installed',
            'pip install mmrazor==1.0.0',
            id='no mmrazor',
        ),
        pytest.param(
            Fake({'onedl-mmengine': ''}, dict.fromkeys(MODULES, missing('mmengine')), stack='forks'),
            'onedl-mmengine is not installed',
            'pip install onedl-mmengine==0.10.12',
            id='no mmengine among forks',
        ),
        pytest.param(Fake(hook=False), 'the start-up file of the plugin did not run', 'pip install', id='no hook'),
    ],
)
def test_each_fault_is_one_line_with_its_fix(machine: Fake, problem: str, fix: str) -> None:
    faults = examine(machine).faults
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert problem in faults[0].problem
    assert fix in faults[0].fix
    assert '\n' not in str(faults[0])


@pytest.mark.parametrize('module', ['pkg_resources', 'ftfy', 'regex', 'joblib'])
def test_what_nothing_fails_for_may_be_missing(module: str) -> None:
    # The forks do not import pkg_resources, and older MMSegmentation neither ftfy nor regex.
    assert examine(Fake({module: ''}, {module: missing(module)}, stack='forks')).faults == []


@pytest.mark.parametrize('why', [missing('mmcv._ext'), missing('pkg_resources'), 'something odd'])
def test_reason_is_told_once_where_all_packages_fail_for_it(why: str) -> None:
    assert len(examine(Fake(broken=dict.fromkeys(MODULES, why))).faults) == 1


def test_torch_that_is_missing_is_not_repeated_by_what_imports_it() -> None:
    for stack in STACKS:
        report = examine(Fake({'torch': ''}, dict.fromkeys(('torch', *MODULES), missing('torch')), stack=stack))
        assert [fault.problem for fault in report.faults] == ['torch is not installed']
        assert report.faults[0].fix == f'pip install torch=={report.stack.version("torch")}'


@pytest.mark.parametrize(
    ('version', 'why', 'fix'),
    [
        ('2.5.1', 'something odd', 'pip install --force-reinstall --no-deps torch==2.5.1'),
        (
            '2.5.1+cu121',
            missing('torch'),
            'pip install --force-reinstall --no-deps torch==2.5.1+cu121, from the index that it came from',
        ),
        ('2.14.0', missing('sympy'), 'pip install sympy'),
        (
            '2.14.0',
            'libcudnn.so.9: cannot open shared object file: No such file or directory',
            'provide libcudnn.so.9, or install the same torch again: '
            "pip install --force-reinstall torch==2.14.0 'setuptools>=77,<82'",
        ),
    ],
)
def test_torch_that_cannot_be_imported_stays_what_it_is(version: str, why: str, fix: str) -> None:
    report = examine(Fake({'torch': version}, dict.fromkeys(('torch', *MODULES), why)))
    assert [tuple(fault) for fault in report.faults] == [(f'torch {version} cannot be imported ({why})', fix)]


def test_same_machine_can_have_several_faults() -> None:
    broken = {'cv2': 'libGL.so.1: no such file', 'mmdet.models': refused('2.2.0')}
    machine = Fake({'torch': '2.5.1', 'mmcv': '2.2.0'}, broken, hook=False)
    assert len(examine(machine).faults) == 3


def test_each_package_is_tried_once() -> None:
    class Counting(Fake):
        tried: list[str] = []

        def why_not(self, module: str) -> str:
            self.tried.append(module)
            return super().why_not(module)

    examine(Counting(broken={**NO_OPS, 'mmrazor.models': 'something odd'}))
    assert len(Counting.tried) == len(set(Counting.tried))
    packages = ['mmengine.runner', 'mmcv', 'mmdet.models', 'mmseg.models', 'mmrazor.models']
    assert [module for module in Counting.tried if module in packages] == packages


def test_detector_user_needs_no_segmentor() -> None:
    report = examine(Fake({'mmsegmentation': '', 'ftfy': '', 'regex': ''}, {'ftfy': missing('ftfy')}))
    assert report.faults == []
    assert report.notes == ['mmsegmentation is not installed: segmentors cannot be distilled.']


def test_quantization_that_is_off_is_a_note() -> None:
    report = examine(Fake(lacking=('torch.ao.quantization.fx.reverse2',)))
    assert report.faults == []
    assert report.notes == ['The quantization part of mmrazor is switched off: torch has no reverse2.']


def test_missing_openmim_is_a_note() -> None:
    report = examine(Fake({'openmim': ''}))
    assert report.faults == []
    assert [note.split(':')[0] for note in report.notes] == ['"mim train" needs openmim']


def test_start_up_file_that_the_user_switched_off_is_a_note() -> None:
    report = examine(Fake(hook=False, off=True))
    assert report.faults == []
    assert len(report.notes) == 1
    assert report.notes[0].startswith('MMKD_NO_STARTUP is set')


def test_plugin_that_does_not_import_is_a_fault_where_nothing_else_is() -> None:
    broken = {'mmkd_plugin.engine': "module 'torch' has no attribute 'x'"}
    faults = examine(Fake(broken=broken)).faults
    assert [fault.problem for fault in faults] == [
        "the plugin itself cannot be imported (module 'torch' has no attribute 'x')"
    ]
    faults = examine(Fake(broken={**broken, 'mmrazor.models': 'something odd'})).faults
    assert len(faults) == 1
    assert 'something odd' in faults[0].problem
