"""The stacks are read from one file, and versions are compared without a package's help."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkd_plugin.compat.stacks import DEFAULT, DISTRIBUTIONS, Stack, nearest_stack, read_stacks, within

STACKS = read_stacks()


def pinned(stack: Stack) -> dict[str, str]:
    """The versions that a stack leaves no choice in."""
    return {name: stack.version(name) for name in stack.packages if stack.version(name)}


def test_default_is_one_of_them() -> None:
    assert DEFAULT in STACKS


@pytest.mark.parametrize('stack', STACKS.values(), ids=STACKS)
def test_every_stack_pins_torch_and_what_the_plugin_builds_on(stack: Stack) -> None:
    assert within(stack.python, '>=3.8')
    assert {'torch', *(stack.distribution(module) for module in DISTRIBUTIONS)} <= set(pinned(stack))
    assert 'setuptools' in stack.packages
    assert stack.about
    assert 0 < stack.download < stack.disk


@pytest.mark.parametrize('stack', STACKS.values(), ids=STACKS)
def test_stack_has_one_distribution_of_each_package(stack: Stack) -> None:
    assert all(sum(name in stack.packages for name in names) == 1 for names in DISTRIBUTIONS.values())


@pytest.mark.parametrize('stack', STACKS.values(), ids=STACKS)
def test_stack_is_the_nearest_to_itself(stack: Stack) -> None:
    assert nearest_stack(pinned(stack), f'{stack.python}.1') == stack


@pytest.mark.parametrize(
    ('versions', 'python', 'name'),
    [
        ({}, '3.11.2', 'default'),
        ({'torch': '2.14.0'}, '3.11.2', 'default'),
        ({'torch': '2.99.0'}, '3.13.0', 'newest-3.13'),
        ({'torch': '2.99.0'}, '3.12.0', 'newest'),
        ({'torch': '2.0.0'}, '3.9.0', 'docs-2023'),
        ({'torch': '2.2.1', 'mmcv': '2.1.0'}, '3.10.1', 'wheels'),
        ({'torch': '2.13.0', 'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.9', 'mmdet': '3.3.0'}, '3.11', 'forks'),
        ({'torch': '2.4.0', 'onedl-mmcv': '2.3.6'}, '3.11', 'forks'),
        ({'torch': '2.13.0', 'onedl-mmcv': '', 'mmcv': '2.1.0'}, '3.11', 'default'),
    ],
)
def test_nearest_stack_has_the_same_distributions_and_then_the_nearest_torch(
    versions: dict[str, str], python: str, name: str
) -> None:
    assert nearest_stack(versions, python).name == name


def test_file_of_ones_own_is_read_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / 'stacks.cfg'
    file.write_text(
        '[mine]\nabout = of a test\npython = 3.9\ndownload = 1\ndisk = 2.5\n'
        'packages =\n    torch==2.1.0\n    onedl-mmcv==2.3.0\n    opencv-python<4.12\n    joblib\n'
    )
    stacks = read_stacks(file)
    packages = {'torch': '==2.1.0', 'onedl-mmcv': '==2.3.0', 'opencv-python': '<4.12', 'joblib': ''}
    assert stacks == {'mine': Stack('mine', 'of a test', '3.9', packages, 1.0, 2.5)}
    mine = stacks['mine']
    assert mine.requirements == ['torch==2.1.0', 'onedl-mmcv==2.3.0', 'opencv-python<4.12', 'joblib']
    assert mine.distribution('mmcv') == 'onedl-mmcv'
    assert mine.version('onedl-mmcv') == '2.3.0'
    assert mine.version('joblib') == ''
    assert mine.allows('torch', '2.1.0+cu121')
    assert not mine.allows('torch', '2.1.1')
    assert mine.allows('joblib', '7')


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
        ('2.1.0', '<=2.1.0', True),
        ('2.1.1', '<=2.1.0', False),
        ('3', '', True),
    ],
)
def test_versions_compare_as_numbers(version: str, spec: str, expected: bool) -> None:
    assert within(version, spec) is expected
