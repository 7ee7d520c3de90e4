"""The doctor names each thing that will not work, once, with its fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmkd_plugin.compat import doctor
from mmkd_plugin.compat.doctor import Machine, examine

ROOT = Path(__file__).resolve().parents[2]
HEALTHY = {
    'torch': '2.13.0+cpu',
    'setuptools': '81.0.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'mmrazor': '1.0.0',
    'joblib': '1.6.0',
    'ftfy': '6.3.1',
    'regex': '2026.1',
    'openmim': '0.3.9',
}


class Fake(Machine):
    """A machine on which everything works, but for what a test says."""

    def __init__(
        self,
        versions: dict[str, str] | None = None,
        broken: dict[str, str] | None = None,
        cuda: tuple[str, str] = ('', ''),
        hook: bool = True,
        off: bool = False,
    ) -> None:
        self.versions = {**HEALTHY, **(versions or {})}
        self.broken = broken or {}
        self.cuda = cuda
        self.hook = hook
        self.off = off

    def version(self, package: str) -> str:
        return self.versions.get(package, '')

    def why_not(self, module: str) -> str:
        return self.broken.get(module, '')

    def torch_cuda(self) -> str:
        return self.cuda[0]

    def mmcv_cuda(self) -> str:
        return self.cuda[1]

    def lacking_in_torch(self) -> list[str]:
        return []

    def hook_runs(self) -> bool:
        return self.hook

    def hook_is_off(self) -> bool:
        return self.off


def missing(name: str) -> str:
    """Python's own words for a module that is not there."""
    return f"No module named '{name}'"


def test_healthy_machine_has_no_faults() -> None:
    report = examine(Fake())
    assert report.faults == []
    assert report.notes == []
    assert {row.verdict for row in report.rows} == {'ok'}


@pytest.mark.parametrize(
    ('machine', 'problem', 'fix'),
    [
        pytest.param(
            Fake(broken={'mmcv._ext': missing('mmcv._ext')}),
            'mmcv 2.1.0 was built without its operators',
            'MMCV_WITH_OPS=1 pip install',
            id='mmcv without ops',
        ),
        pytest.param(
            Fake(broken={'mmcv._ext': '_ext.so: undefined symbol: _ZN2at'}),
            'the operators of mmcv 2.1.0 do not fit torch 2.13.0+cpu',
            'MMCV_WITH_OPS=1 pip install',
            id='mmcv of another torch',
        ),
        pytest.param(
            Fake({'mmcv': '', 'mmcv-lite': '2.1.0'}, {'mmcv._ext': missing('mmcv._ext')}),
            'mmcv-lite 2.1.0 has no compiled operators',
            'pip uninstall mmcv-lite',
            id='mmcv-lite',
        ),
        pytest.param(Fake({'mmcv': '2.2.0'}), 'mmcv 2.2.0 is outside >=2.0.0,<2.2.0', 'mmcv==2.1.0', id='mmcv too new'),
        pytest.param(Fake({'mmcv': '1.7.2'}), 'mmcv 1.7.2 is outside', 'mmcv==2.1.0', id='mmcv too old'),
        pytest.param(
            Fake({'setuptools': '82.0.0'}, {'pkg_resources': missing('pkg_resources')}),
            'setuptools 82.0.0 brings no pkg_resources',
            "pip install 'setuptools>=77,<82'",
            id='no pkg_resources',
        ),
        pytest.param(
            Fake(broken={'mmrazor.models': 'something odd'}),
            'mmrazor 1.0.0 cannot be imported (something odd)',
            'pip install mmrazor==1.0.0',
            id='mmrazor not importable',
        ),
        pytest.param(
            Fake({'torch': '2.5.1'}), 'torch 2.5.1 is outside >=2.6,<2.14', 'torch==2.13.0', id='torch too old'
        ),
        pytest.param(Fake({'torch': '2.14.0'}), 'torch 2.14.0 is outside', 'torch==2.13.0', id='torch too new'),
        pytest.param(
            Fake(cuda=('12.6', '')),
            'torch runs on CUDA 12.6, but the operators of mmcv were built for the CPU only',
            'install the CUDA toolkit 12.6',
            id='mmcv for the CPU',
        ),
        pytest.param(
            Fake(cuda=('12.6', '11.8')), 'were built for CUDA 11.8', 'install the CUDA toolkit 12.6', id='other CUDA'
        ),
        pytest.param(
            Fake(broken={'cv2': 'libGL.so.1: cannot open shared object file'}),
            'OpenCV cannot be imported on this machine without a display (libGL.so.1',
            'pip install opencv-python-headless',
            id='no libGL',
        ),
        pytest.param(
            Fake(broken={'joblib': missing('joblib'), 'mmrazor.models': missing('joblib')}),
            'mmrazor needs joblib',
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
            Fake(broken={'regex': missing('regex'), 'mmseg.models': missing('regex')}),
            'mmsegmentation needs regex',
            'pip install regex',
            id='regex',
        ),
        pytest.param(
            Fake({'mmrazor': ''}, {'mmrazor.models': missing('mmrazor')}),
            'mmrazor is not installed',
            'pip install mmrazor==1.0.0',
            id='no mmrazor',
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


def test_missing_torch_is_not_repeated_by_what_imports_it() -> None:
    modules = ('torch', 'mmcv._ext', 'mmengine.runner', 'mmdet.models', 'mmseg.models', 'mmrazor.models')
    faults = examine(Fake({'torch': ''}, dict.fromkeys(modules, missing('torch')))).faults
    assert [fault.problem for fault in faults] == ['torch is not installed']


def test_same_machine_can_have_several_faults() -> None:
    machine = Fake({'torch': '2.5.1', 'mmcv': '2.2.0'}, {'cv2': 'libGL.so.1: no such file'}, hook=False)
    assert len(examine(machine).faults) == 4


def test_other_version_is_marked_but_no_fault() -> None:
    report = examine(Fake({'mmdet': '3.2.0'}))
    assert report.faults == []
    assert next(row for row in report.rows if row.package == 'mmdet').verdict == 'not tested'


def test_detector_user_needs_no_segmentor() -> None:
    report = examine(Fake({'mmsegmentation': '', 'ftfy': '', 'regex': ''}, {'ftfy': missing('ftfy')}))
    assert report.faults == []
    assert report.notes == ['mmsegmentation is not installed: segmentors cannot be distilled.']


def test_start_up_file_that_the_user_switched_off_is_a_note() -> None:
    report = examine(Fake(hook=False, off=True))
    assert report.faults == []
    assert len(report.notes) == 1
    assert report.notes[0].startswith('MMKD_NO_STARTUP is set')


def test_switch_is_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMKD_NO_STARTUP', '')
    assert not Machine().hook_is_off()
    monkeypatch.setenv('MMKD_NO_STARTUP', '1')
    assert Machine().hook_is_off()


@pytest.mark.parametrize('body', ['raise SystemExit(3)', 'raise KeyError("x")', '1 / 0', 'import no_such_thing'])
def test_import_that_raises_anything_is_a_line(body: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'breaks.py').write_text(f'print("noise")\n{body}\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    why = Machine().why_not('breaks')
    assert why
    assert '\n' not in why


def test_command_ends_with_one_where_something_will_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, 'Machine', lambda: Fake({'mmcv': '2.2.0'}))
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert 'FAULT  mmcv 2.2.0 is outside' in out
    assert 'not tested' in out


def test_command_ends_with_zero_where_all_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, 'Machine', Fake)
    assert doctor.main() == 0
    assert 'Everything that distillation needs works.' in capsys.readouterr().out


def test_command_runs_without_any_package() -> None:
    done = subprocess.run(
        [sys.executable, '-S', str(ROOT / 'tools/doctor.py')], capture_output=True, text=True, cwd=ROOT / 'tests'
    )
    assert done.returncode == 1
    assert 'FAULT  torch is not installed' in done.stdout
    assert done.stderr == ''
