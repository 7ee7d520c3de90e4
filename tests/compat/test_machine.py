"""Questions that fail are answered in one line, and what packages print stays out of the report."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from mmkd_plugin.compat.machine import Machine

NOISE = """
import logging, sys, warnings
print('Could not import OneDL')
print('broken wheel', file=sys.stderr)
warnings.warn('old', stacklevel=2)
logging.getLogger('noisy').warning('logged')
"""


@pytest.fixture()
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that Python imports from, with what is imported from it forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'noisy', raising=False)
    return tmp_path


@pytest.mark.parametrize('body', ['raise SystemExit(3)', 'raise KeyError("x")', '1 / 0', 'import no_such_thing'])
def test_import_that_raises_anything_is_a_line(body: str, folder: Path) -> None:
    (folder / 'noisy.py').write_text(f'{NOISE}{body}\n')
    why = Machine().why_not('noisy')
    assert why
    assert '\n' not in why


def test_what_is_printed_by_an_import_is_not_seen(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / 'noisy.py').write_text(NOISE)
    assert Machine().why_not('noisy') == ''
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ('', '')


def test_version_is_that_of_the_distribution() -> None:
    assert Machine().version('pytest') == pytest.__version__
    assert Machine().version('no-such-thing') == ''
    assert Machine().python() == '.'.join(map(str, sys.version_info[:3]))


def test_bases_are_looked_for_as_mmengine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('mmengine')
    assert Machine().why_no_bases() == ''

    def is_installed(package: str) -> bool:
        raise ModuleNotFoundError("No module named 'pkg_resources'")

    monkeypatch.setattr('mmengine.utils.is_installed', is_installed)
    assert Machine().why_no_bases() == "No module named 'pkg_resources'"


def test_mmengine_of_openmmlab_needs_pkg_resources_for_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip('mmengine.utils.package_utils')
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    asks = 'pkg_resources' in Path(utils.__file__).read_text(encoding='utf-8').split('def get_installed_path')[0]
    assert ('pkg_resources' in Machine().why_no_bases()) is asks


def test_torch_is_asked_for_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine().why_no_numpy() == ''

    def zeros(size: int) -> None:
        raise RuntimeError('Numpy is not available')

    monkeypatch.setattr('torch.zeros', zeros)
    assert Machine().why_no_numpy() == 'Numpy is not available'


def test_operators_tell_their_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (('not available', ''), ('12.6', '12.6')):
        ops = ModuleType('mmcv.ops')
        ops.__dict__['get_compiling_cuda_version'] = lambda found=found: found
        monkeypatch.setitem(sys.modules, 'mmcv.ops', ops)
        assert Machine().mmcv_cuda() == expected
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    assert Machine().mmcv_cuda() == ''


def test_torch_without_gpu_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torch.version.cuda', '12.6')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert Machine().torch_cuda() == ''
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    assert Machine().torch_cuda() == '12.6'


def test_switch_is_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMKD_NO_STARTUP', '')
    assert not Machine().hook_is_off()
    monkeypatch.setenv('MMKD_NO_STARTUP', '1')
    assert Machine().hook_is_off()


def test_start_up_file_is_known_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, '_mmkd_plugin_config_hook', raising=False)
    assert not Machine().hook_runs()
    monkeypatch.setitem(sys.modules, '_mmkd_plugin_config_hook', ModuleType('_mmkd_plugin_config_hook'))
    assert Machine().hook_runs()
