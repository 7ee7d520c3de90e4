"""The page on the formulas names them all and its loop runs; so do their docstrings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

from mmkd_plugin import functional

PAGE = (Path(__file__).parents[2] / 'docs' / 'functional.md').read_text()
FUNCTIONS = [name for name in functional.__all__ if inspect.isfunction(getattr(functional, name))]


def test_the_table_names_every_function_once_and_nothing_else():
    rows = re.findall(r'^\| (`.*?) \|', PAGE, flags=re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r'`(\w+)`', row)) == sorted(FUNCTIONS)


def test_all_is_everything_public():
    public = {name for name, item in vars(functional).items() if callable(item) and not name.startswith('_')}
    assert set(functional.__all__) == public


def test_the_training_loop_learns(capsys):
    torch.manual_seed(0)
    (program,) = re.findall(r'```python\n(.*?)```', PAGE, flags=re.DOTALL)
    exec(program, {})
    losses = [float(line.rpartition(' ')[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2
    assert len([line for line in program.splitlines() if line]) == 10


@pytest.mark.parametrize('name', FUNCTIONS)
def test_docstring_is_complete(name):
    function = getattr(functional, name)
    text = inspect.getdoc(function)
    assert 'math::' in text or ':math:' in text
    assert '>>> ' in text
    arguments = text.partition('Args:\n')[2].partition('Returns:\n')[0]
    assert re.findall(r'^    (\w+): ', arguments, flags=re.MULTILINE) == list(inspect.signature(function).parameters)
    source = inspect.getsource(inspect.unwrap(function))
    refuses = 'raise DistillError' in source or 'require_' in source
    assert not refuses or 'DistillError: ' in text.partition('Raises:\n')[2]
