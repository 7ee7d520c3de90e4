"""The tested versions are read from one file, and compared without a package's help."""

from __future__ import annotations

import pytest

from mmkd_plugin.compat.tested import TESTED_FILE, read_tested, within


def test_file_names_a_default_inside_the_range_of_torch() -> None:
    torch = read_tested()['torch']
    assert torch.requirement == f'torch=={torch.default}'
    assert torch.allows(torch.default)
    assert torch.allows(f'{torch.default}+cpu')


def test_comments_are_no_packages() -> None:
    lines = [line for line in TESTED_FILE.read_text().splitlines() if line and not line.startswith('#')]
    assert len(read_tested()) == len(lines)


def test_requirement_of_a_pinned_package_is_its_line() -> None:
    assert read_tested()['mmcv'].requirement == 'mmcv==2.1.0'


@pytest.mark.parametrize(
    ('version', 'spec', 'expected'),
    [
        ('2.13.0+cpu', '>=2.6,<2.14', True),
        ('2.6.0', '>=2.6,<2.14', True),
        ('2.5.1', '>=2.6,<2.14', False),
        ('2.14.0', '>=2.6,<2.14', False),
        ('2.14.0a0+git1234', '>=2.6,<2.14', False),
        ('2.9.1', '>=2.10', False),
        ('1.0', '==1.0.0', True),
        ('1.0.1', '==1.0.0', False),
        ('2.0.0rc4', '>=2.0.0,<2.2.0', True),
        ('3', '', True),
    ],
)
def test_versions_compare_as_numbers(version: str, spec: str, expected: bool) -> None:
    assert within(version, spec) is expected
