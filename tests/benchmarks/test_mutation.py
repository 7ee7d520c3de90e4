"""The mutation run tells a broken formula from a whole one, and its page counts what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutation import Mutant, Result, mutants_of, page_of

pytestmark = pytest.mark.slow

# In a process of its own, since a fork of this one would have the threads of other tests.
PROGRAM = """
import torch
from benchmarks.mutation import FOLDER, passes
source = (FOLDER / 'soft_labels.py').read_text()
broken = source.replace('difference + wanted', 'difference - wanted')
print(broken != source, passes('soft_labels', source), passes('soft_labels', broken), passes('soft_labels', 'x +'))
"""


def test_broken_formula_is_told_from_a_whole_one():
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, '-c', PROGRAM], cwd=root, capture_output=True, text=True, timeout=300)
    assert result.stdout == 'True True False False\n', result.stderr


def test_mutants_have_one_change_each():
    pytest.importorskip('mutmut')
    mutants = list(mutants_of('soft_labels'))
    changes = {(mutant.before, mutant.after) for mutant in mutants}
    assert ('difference = difference + wanted', 'difference = difference - wanted') in changes
    assert all(mutant.before != mutant.after and mutant.after in mutant.source for mutant in mutants if mutant.after)


def test_page_counts_what_is_no_equivalent():
    survivor, equivalent = (Mutant('fgd', line, f'x = {line}', 'x = 0', '') for line in (3, 7))
    results = [Result('chen', 4), Result('fgd', 5, [survivor], [equivalent])]
    page = page_of(results, {('fgd', 'x = 7', 'x = 0'): 'It is overwritten.'})
    assert '| `chen.py` | 4 | 4 | 0 |\n| `fgd.py` | 5 | 6 | 1 |\n| all | 9 | 10 (90.0%) | 1 |\n' in page
    assert page.index('## Survivors') < page.index('- x = 3') < page.index('## Equivalents') < page.index('- x = 7')
    assert 'It is overwritten.' in page
