"""The examples in the docstrings of the package run and give what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import mmkd_plugin

ROOT = Path(mmkd_plugin.__file__).parents[1]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def examples_of(path: Path) -> dict[str, list[doctest.Example]]:
    """The examples of a file by the name and line of what they document, read from its text.

    The finder of doctest passes over functions that a decorator of another module wraps.
    """
    parser, found = doctest.DocTestParser(), {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, DOCUMENTED):
            examples = parser.get_examples(ast.get_docstring(node) or '')
            if examples:
                found[f'{getattr(node, "name", path.stem)}:{getattr(node, "lineno", 1)}'] = examples
    return found


def module_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = sorted(path for path in Path(mmkd_plugin.__file__).parent.rglob('*.py') if examples_of(path))


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_examples(path):
    namespace = vars(importlib.import_module(module_of(path)))
    runner, failures = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE), []
    for name, examples in examples_of(path).items():
        assert all(doctest.SKIP not in example.options for example in examples), f'{name} skips an example'
        test = doctest.DocTest(examples, dict(namespace), name, str(path), 0, None)
        result = runner.run(test, out=failures.append)
        assert result.attempted == len(examples)
        assert not result.failed, ''.join(failures)


def test_packages_are_searched_to_the_bottom():
    names = {module_of(path) for path in FILES}
    assert {'mmkd_plugin.functional.fgd', 'mmkd_plugin.distillers.schedule', 'mmkd_plugin.utilities.resize'} <= names


def test_wrapped_functions_are_found():
    names = {name.partition(':')[0] for name in examples_of(ROOT / 'mmkd_plugin' / 'functional' / 'fgd.py')}
    assert names == {'spatial_attention', 'channel_attention', 'box_masks', 'fgd_loss'}
