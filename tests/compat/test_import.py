"""Importing the plugin is cheap, and all it takes for MMRazor to be importable afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from _helpers.standard_library import standard_library

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {names}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Makes packages impossible to import, in the words of a Python that does not have them."""


def python(code: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run code in a new interpreter, optionally one that lacks some packages."""
    whole = WITHOUT.format(names=set(without)) + textwrap.dedent(code) if without else textwrap.dedent(code)
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', whole], capture_output=True, text=True, cwd=ROOT)


def output(code: str, without: tuple[str, ...] = ()) -> str:
    """What such code prints."""
    done = python(code, without)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ALL_BUT_TORCH = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmrazor', 'joblib', 'numpy', 'rich', 'matplotlib', 'PIL')


@pytest.mark.parametrize('module', ['mmkd_plugin', 'mmkd_plugin.compat', 'mmkd_plugin.errors', 'mmkd_plugin.version'])
def test_import_stays_within_the_standard_library(module: str) -> None:
    out = output(f"""
        import sys
        before = set(sys.modules)
        import {module}
        new = {{name.split('.')[0] for name in set(sys.modules) - before}}
        print(sorted(new - {standard_library()!r}))
    """)
    assert out == "['mmkd_plugin']"


def test_pure_functions_need_torch_alone() -> None:
    assert output('import mmkd_plugin.functional; print(1)', without=ALL_BUT_TORCH) == '1'


def test_mmrazor_imports_after_the_plugin() -> None:
    out = output("""
        import mmkd_plugin, mmrazor.models
        from mmrazor.registry import MODELS
        print(MODELS.get('ConfigurableDistiller').__name__)
    """)
    assert out == 'ConfigurableDistiller'


def test_mmrazor_may_be_imported_before_the_plugin() -> None:
    # Before the plugin, MMRazor takes no MMCV that it does not know.
    out = output("""
        import mmcv
        true_version, mmcv.__version__ = mmcv.__version__, '2.1.0'
        import mmrazor
        mmcv.__version__ = true_version
        import mmkd_plugin, mmrazor.models
        print(1)
    """)
    assert out == '1'


def test_looking_mmrazor_up_imports_nothing() -> None:
    out = output("""
        import importlib.util, sys, mmkd_plugin
        found = importlib.util.find_spec('mmrazor')
        print(found is not None, 'torch' in sys.modules)
    """)
    assert out == 'True False'


@pytest.mark.parametrize('missing', ['mmrazor', 'joblib'])
def test_missing_package_keeps_its_own_error(missing: str) -> None:
    done = python('import mmkd_plugin, mmrazor.models', without=(missing,))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named '{missing}'"
    assert 'DistillError' not in done.stderr


NEWER = """
import mmcv, mmengine
mmcv.__version__, mmengine.__version__ = '2.3.6', '0.10.12'
"""
"""Makes the packages say the versions of the maintained forks."""

OTHER_RAZOR = """
import mmcv, sys
from mmengine.utils import digit_version
mmcv_maximum_version = '2.1.0'
seen = [*globals().get('seen', []), mmcv.__version__]
assert digit_version(mmcv.__version__) <= digit_version(mmcv_maximum_version), 'too new'
"""


def test_mmrazor_imports_beside_a_newer_mmcv() -> None:
    out = output(f"""{NEWER}
import mmkd_plugin, mmrazor
print(mmcv.__version__, mmengine.__version__, mmrazor.mmcv_version[:3])
    """)
    assert out == '2.3.6 0.10.12 (2, 1, 0)'


def test_mmrazor_refuses_a_newer_mmcv_where_the_plugin_is_not_imported() -> None:
    done = python(f'{NEWER}\nimport mmrazor')
    assert 'AssertionError: MMCV==2.3.6 is used but incompatible' in done.stderr


@pytest.mark.parametrize(
    ('package', 'version', 'words'), [('mmcv', '1.7.0', 'MMCV==1.7.0'), ('mmengine', '1.0.0', 'MMEngine==1.0.0')]
)
def test_mmrazor_refuses_other_versions_in_its_own_words(package: str, version: str, words: str) -> None:
    done = python(f'{NEWER}\n{package}.__version__ = {version!r}\nimport mmkd_plugin, mmrazor')
    assert f'AssertionError: {words} is used but incompatible' in done.stderr
    assert 'DistillError' not in done.stderr


def import_other_mmrazor(folder: Path, rest: str) -> str:
    """Import an MMRazor of our own making beside a newer MMCV; what it saw, and what stands afterwards."""
    (folder / 'mmrazor').mkdir()
    (folder / 'mmrazor/__init__.py').write_text(OTHER_RAZOR + rest)
    return output(f"""{NEWER}
import sys
sys.path.insert(0, {str(folder)!r})
import mmkd_plugin
try:
    import mmrazor
    print(mmrazor.seen)
except Exception as error:
    print(repr(error))
print(mmcv.__version__)
    """)


def test_mmcv_is_shown_older_to_mmrazor_alone(tmp_path: Path) -> None:
    assert import_other_mmrazor(tmp_path, '').splitlines() == ["['2.3.6', '2.1.0']", '2.3.6']


def test_true_version_stands_again_after_an_error(tmp_path: Path) -> None:
    assert import_other_mmrazor(tmp_path, '1 / 0').splitlines() == [
        repr(ZeroDivisionError('division by zero')),
        '2.3.6',
    ]
