"""Texts of errors and names."""

from __future__ import annotations

import pytest

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.text import sentence, without_prefix


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (DistillError('No such\n  level.'), 'No such'),
        (RuntimeError('\n  too   much\nof it'), 'RuntimeError: too much'),
        (ValueError(), 'ValueError: '),
        (ValueError('a' * 400), f'ValueError: {"a" * 297}...'),
    ],
)
def test_error_is_one_line(error: Exception, expected: str) -> None:
    assert sentence(error) == expected


def test_start_of_a_name() -> None:
    assert (without_prefix('loss_fgd', 'loss_'), without_prefix('fgd', 'loss_')) == ('fgd', 'fgd')
