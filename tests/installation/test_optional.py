"""Optional packages are installed one by one, and none that cannot work stays."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class Pip:
    """An environment that notes what pip is asked for."""

    folder = Path('there')

    def __init__(self, steps: ModuleType, present: dict[str, str], absent: str = '', fits: bool = True) -> None:
        self.steps, self.present, self.absent, self.fits = steps, present, absent, fits
        self.asked: list[tuple[Any, ...]] = []

    def versions(self, names: list[str]) -> dict[str, str]:
        return {name: self.present.get(name, '') for name in names}

    def ask(self, code: str) -> Any:
        assert 'import json, torchvision' in code
        return '0.28.0' if self.fits else None

    def pip(self, title: str, *arguments: Any) -> None:
        self.asked.append(arguments)
        if arguments[0] == 'install' and arguments[-1] == self.absent:
            raise self.steps.SetupError('there is none')
        self.present['torchvision'] = '' if arguments[0] == 'uninstall' else '0.28.0'


@pytest.fixture()
def stack(steps: ModuleType) -> Any:
    return steps.read_stacks()['default']._replace(optional=('torchvision==0.28.0', 'timm', 'transformers<4.50'))


def test_what_is_missing_is_installed_beside_the_constraints(steps: ModuleType, stack: Any) -> None:
    environment = Pip(steps, {'timm': '1.0', 'transformers': '4.57.6'})
    assert steps.install_optional(environment, stack) == 0
    constraints = ('install', '-c', Path('there/constraints.txt'))
    assert environment.asked == [(*constraints, 'torchvision==0.28.0'), (*constraints, 'transformers<4.50')]


def test_what_pip_cannot_give_is_left_out(steps: ModuleType, stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    environment = Pip(steps, {}, absent='timm')
    assert steps.install_optional(environment, stack) == 0
    assert environment.asked[-1][-1] == 'transformers<4.50'
    assert 'timm is left out: there is none' in capsys.readouterr().out


def test_a_torchvision_for_another_torch_does_not_stay(
    steps: ModuleType, stack: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = Pip(steps, {}, fits=False)
    steps.install_optional(environment, stack)
    assert environment.asked[-1] == ('uninstall', '-y', 'torchvision')
    assert 'torchvision is left out: its build does not fit this torch' in capsys.readouterr().out
