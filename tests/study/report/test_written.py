"""A written config is read without being run."""

from __future__ import annotations

import math

import pytest
from mmengine.config import Config

from mmkd_plugin.study.report.written import config_text, written_config

ENTRIES = dict(
    a=1,
    b=[-1.5, 'it\'s "x"', None, True, float('inf')],
    c=dict(d=(1,), e={'with blank': dict(f=[dict(g=2)]), 3: 4}, empty=dict(), none=[]),
    long=['a rather long text that fills a line'] * 4,
)


def test_what_mmengine_writes_is_read() -> None:
    assert written_config(Config(ENTRIES).pretty_text) == ENTRIES


def test_text_of_an_entry_is_read_as_the_same() -> None:
    text = '\n'.join(f'{key} = {config_text(value)}' for key, value in ENTRIES.items())
    assert written_config(text) == ENTRIES
    assert max(map(len, text.splitlines())) < 100


def test_names_of_numbers() -> None:
    assert math.isnan(written_config('x = nan')['x'])


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'x = open("/tmp/x", "w")',
        'x = dict(__import__("os").environ)',
        'x = dict(**y)',
        'x = {**y}',
        'x = [i for i in (1, 2)]',
        'x.y = 1',
        'x = y',
        'x = (',
        'x = {[]: 1}',
        'x = dict(1)',
        'x = -"a"',
        '\0',
        'x = ' + '(' * 5000 + ')' * 5000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        written_config(text)
