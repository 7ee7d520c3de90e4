"""What the package imports is declared, and every place names the same oldest Python."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest
from _helpers.standard_library import standard_library

from mmkd_plugin.compat.doctor import PYTHON

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted([*(ROOT / 'mmkd_plugin').rglob('*.py'), *(ROOT / 'tools').glob('*.py')])
FLOOR = (3, 8)
USERS_OWN = {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmrazor', 'transformers'}
"""``transformers`` is what those models of MMDetection ask for that read text."""
OLD_PROTOBUF = {'mmdeploy', 'onnxruntime'}
"""What brings it, so that it is tested in an environment of its own."""
WITH_TORCH = {'deepspeed'}
"""What is built against the torch that is there; tests/runs/test_engines.py takes it where it is installed."""
PROJECT_OF = {'PIL': 'Pillow'}
"""The names that differ between ``import`` and ``pip install``."""


def settings() -> configparser.ConfigParser:
    """The project's own description."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg', encoding='utf-8')
    return parser


def imported(file: Path) -> set[str]:
    """The top-level names that a module imports anywhere, at its end or in a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split('.')[0])
    return found


def optional() -> set[str]:
    """The projects that an extra for users brings, by the files that setup.cfg names."""
    extras = settings()['options.extras_require']
    lines = [
        line
        for name, file in extras.items()
        if name != 'dev'
        for line in (ROOT / file.partition('file:')[2].strip()).read_text().split()
    ]
    return {re.split('[<>=]', line)[0] for line in lines}


def test_extras_for_users_are_tested() -> None:
    tested = (ROOT / 'requirements/dev.txt').read_text()
    assert optional() == {'tensorly', *OLD_PROTOBUF, *WITH_TORCH}
    assert all(name in tested for name in optional() - OLD_PROTOBUF - WITH_TORCH)


def test_every_import_is_declared() -> None:
    declared = set(settings()['options']['install_requires'].split()) | optional()
    own = {'mmkd_plugin', *USERS_OWN, *standard_library()}
    missing = {
        f'{PROJECT_OF.get(name, name)} ({file.relative_to(ROOT)})'
        for file in SHIPPED
        for name in imported(file) - own
        if PROJECT_OF.get(name, name) not in declared
    }
    assert not missing, f'add to install_requires in setup.cfg: {", ".join(sorted(missing))}'


def test_imports_in_functions_are_seen(tmp_path: Path) -> None:
    file = tmp_path / 'module.py'
    file.write_text('import a.b\nfrom . import c\ndef f():\n    from d.e import g\n')
    assert imported(file) == {'a', 'd'}


def test_set_up_installs_what_is_declared(steps: object) -> None:
    assert {'rich', 'matplotlib', 'numpy'} <= set(steps.declared())  # type: ignore[attr-defined]


def test_oldest_python_is_the_same_everywhere() -> None:
    text = '.'.join(map(str, FLOOR))
    ruff = re.search(r"target-version = 'py(\d)(\d+)'", (ROOT / 'pyproject.toml').read_text())
    assert settings()['options']['python_requires'] == f'>={text}'
    assert f'>={text}' == PYTHON
    assert ruff is not None
    assert '.'.join(ruff.groups()) == text


def test_oldest_python_can_read_every_file() -> None:
    for file in SHIPPED:
        ast.parse(file.read_text(encoding='utf-8'), str(file), feature_version=FLOOR)


def test_set_up_says_that_it_asks_for_more_than_the_package(
    steps: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'version_info', (3, 9, 18))
    monkeypatch.setattr(sys, 'argv', ['bootstrap'])
    assert steps.main() == 1  # type: ignore[attr-defined]
    out = capsys.readouterr().out
    assert 'a torch that needs Python 3.10 or later' in out
    assert 'the plugin, which needs 3.8' in out
