"""MMRazor imports on any supported torch, and is touched only where it must be."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from mmkd_plugin.compat import apply, quantization
from mmkd_plugin.errors import DistillError

PART = 'mmrazor.structures.quantization.backend_config'


def run_fresh(code: str) -> str:
    """Run code in a new interpreter, where MMRazor is not imported yet."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_mmrazor(monkeypatch: pytest.MonkeyPatch, folder: Path, imports: str) -> None:
    """Put an MMRazor in place whose quantization part holds the given imports."""
    part = folder.joinpath(*PART.split('.'))
    part.mkdir(parents=True)
    (folder / 'mmrazor/__init__.py').touch()
    (part / 'common_operator_config_utils.py').write_text(imports)
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmrazor']:
        monkeypatch.delitem(sys.modules, name)


def test_mmrazor_imports_after_apply() -> None:
    out = run_fresh("""
        from mmkd_plugin.compat import apply
        apply()
        import mmrazor.engine, mmrazor.models
        from mmrazor.registry import MODELS
        print(MODELS.get('ConfigurableDistiller').__name__)
    """)
    assert out == 'ConfigurableDistiller'


def test_the_registry_applies_it_by_itself() -> None:
    out = run_fresh("""
        from mmengine.registry import MODELS
        MODELS.get('mmkd_plugin.AnyName')
        import mmrazor.models
        print('imported')
    """)
    assert out.endswith('imported')


def test_imported_mmrazor_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = object()
    monkeypatch.setitem(sys.modules, PART, own)
    apply()
    assert sys.modules[PART] is own


def test_mmrazor_that_torch_satisfies_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_mmrazor(monkeypatch, tmp_path, 'import torch.nn\nfrom torch.nn import Module\nimport no_torch_thing\n')
    assert quantization.missing_names() == []
    apply()
    assert PART not in sys.modules


def test_names_that_torch_lacks_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    imports = (
        'try:\n    from torch.nn import (Module,\n        Vanished)\n    import torch.gone\nexcept ImportError: pass\n'
    )
    fake_mmrazor(monkeypatch, tmp_path, imports)
    assert sorted(quantization.missing_names()) == ['torch.gone', 'torch.nn.Vanished']


def test_only_the_failing_part_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_mmrazor(monkeypatch, tmp_path, 'from torch.nn import Vanished\n')
    before = set(sys.modules)
    apply()
    assert [name for name in set(sys.modules) - before if name.startswith('mmrazor')] == [PART]
    monkeypatch.delitem(sys.modules, PART)


@pytest.mark.parametrize('package', ['mmrazor', 'joblib'])
def test_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    def find(name: str, *args: object) -> importlib.machinery.ModuleSpec | None:
        return None if name == package else importlib.machinery.ModuleSpec(name, None)

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(quantization.importlib.util, 'find_spec', find)
    with pytest.raises(DistillError, match=rf'not installed; run "pip install {package}"\.$'):
        quantization.require_mmrazor()


def test_apply_twice_changes_nothing() -> None:
    apply()
    allowed = allowed_by_torch()
    apply()
    assert allowed_by_torch() == allowed


def test_torch_that_takes_no_names_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    monkeypatch.delattr(torch.serialization, 'add_safe_globals', raising=False)
    apply()


def allowed_by_torch() -> set[str]:
    """What the process lets torch's own safe loading read; nothing where torch has no such list."""
    return set(map(str, getattr(torch.serialization, 'get_safe_globals', list)()))
