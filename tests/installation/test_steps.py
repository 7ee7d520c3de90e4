"""The user's torch stays, and what cannot work ends in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class Recorder:
    """An environment that notes what pip is asked for; installing makes ``torch`` the given version."""

    def __init__(self, torch: str, installed: str = '') -> None:
        tools = '1.0' if torch else ''
        self.present = {'torch': torch, 'setuptools': '81.0.0', 'ninja': tools, 'wheel': tools}
        self.installed = installed
        self.asked: list[str] = []

    def versions(self, names: list[str]) -> dict[str, str]:
        return {name: self.present.get(name, '') for name in names}

    def pip(self, title: str, *arguments: str) -> None:
        self.asked += arguments
        self.present['torch'] = self.installed


@pytest.fixture()
def stacks(steps: ModuleType) -> dict[str, Any]:
    """All stacks."""
    return steps.read_stacks()


def test_torch_is_pinned_by_default(steps: ModuleType, stacks: dict[str, Any]) -> None:
    recorder = Recorder('', installed='2.13.0')
    assert steps.install_torch(recorder, stacks['default'], '') == '2.13.0'
    assert recorder.asked == ['install', 'setuptools>=77,<82', 'ninja', 'wheel', 'torch==2.13.0']


def test_torch_of_the_default_environment_stays(steps: ModuleType, stacks: dict[str, Any]) -> None:
    recorder = Recorder('2.9.1+cu126')
    steps.install_torch(recorder, stacks['default'], '')
    assert recorder.asked == []


def test_named_stack_brings_its_own_torch(steps: ModuleType, stacks: dict[str, Any]) -> None:
    recorder = Recorder('2.9.1+cu126', installed='2.1.2')
    steps.install_torch(recorder, stacks['wheels'], '')
    assert recorder.asked[-2:] == ['numpy<2', 'torch==2.1.2']
    recorder = Recorder('2.1.2+cu121')
    steps.install_torch(recorder, stacks['wheels'], '')
    assert recorder.asked == []


def test_choice_of_torch_goes_to_pip_with_its_options(steps: ModuleType, stacks: dict[str, Any]) -> None:
    recorder = Recorder('2.13.0', installed='2.9.1')
    steps.install_torch(recorder, stacks['default'], 'torch==2.9.1 --find-links /wheels')
    assert recorder.asked[-3:] == ['torch==2.9.1', '--find-links', '/wheels']


@pytest.mark.parametrize('version', ['2.99.0', '3.0', '2.0.0'])
def test_torch_that_nobody_tried_is_taken(steps: ModuleType, stacks: dict[str, Any], version: str) -> None:
    assert steps.install_torch(Recorder('', installed=version), stacks['default'], f'torch=={version}') == version


def test_torch_from_before_the_plugin_is_refused(steps: ModuleType, stacks: dict[str, Any]) -> None:
    with pytest.raises(steps.SetupError, match=r"1\.13\.1 is older than 2\.0.*for instance TORCH='torch==2\.13\.0'"):
        steps.install_torch(Recorder('', installed='1.13.1'), stacks['default'], 'torch==1.13.1')


def test_unknown_stack_is_told_with_those_that_exist(steps: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('STACK', 'wheel')
    with pytest.raises(steps.SetupError, match=r'no stack "wheel"; choose one of docs-2023, wheels, middle, default'):
        steps.chosen_stack()


def test_stacks_have_environments_of_their_own(
    steps: ModuleType, stacks: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(steps, 'find_python', lambda version, stack: Path(f'/python{version}'))
    assert steps.environment_of(stacks['default']).folder == steps.ROOT / '.venv'
    assert steps.environment_of(stacks['forks']).folder == steps.ROOT / '.stacks/forks'
    named = steps.environment_of(stacks['docs-2023'], tmp_path / 'here')
    assert (named.folder, named.maker) == (tmp_path / 'here', Path('/python3.8'))
    monkeypatch.setenv('STACKS', str(tmp_path))
    assert steps.environment_of(stacks['forks']).folder == tmp_path / 'forks'


def test_package_under_both_of_its_names_is_refused(steps: ModuleType) -> None:
    class Both:
        folder = Path('.stacks/forks')

        def versions(self, names: list[str]) -> dict[str, str]:
            return {'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6', 'mmrazor': '1.0.0'}

    with pytest.raises(steps.SetupError, match='mmcv and onedl-mmcv are both installed'):
        steps.refuse_twins(Both())


def test_machine_without_graphics_libraries_gets_headless_opencv(steps: ModuleType) -> None:
    class Headless:
        python = Path('python')
        packages = ['opencv-python']

        def versions(self, names: list[str]) -> dict[str, str]:
            return {'opencv-python': '4.11.0.86'}

        def ask(self, code: str) -> str | None:
            return '4.11' if self.packages == ['opencv-python-headless==4.11.0.86'] else None

        def pip(self, title: str, *arguments: str) -> None:
            if arguments[0] == 'uninstall':
                self.packages.remove(arguments[-1])
            else:
                self.packages.append(arguments[-1])

    machine = Headless()
    steps.require_opencv(machine)
    assert machine.packages == ['opencv-python-headless==4.11.0.86']


@pytest.mark.parametrize(('links', 'steps_taken'), [(True, 0), (False, 1)])
def test_lost_links_are_made_again(
    steps: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, links: bool, steps_taken: int
) -> None:
    taken: list[object] = []
    monkeypatch.setenv('MMKD_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(steps, 'LINKS', tmp_path if links else tmp_path / 'lost')
    monkeypatch.setattr(steps, 'stop_on_termination', lambda: None)
    monkeypatch.setattr(steps.Environment, 'complete', lambda *args: True)
    monkeypatch.setattr(steps.Environment, 'remember', lambda *args: None)
    monkeypatch.setattr(steps, 'set_up', lambda *args: taken.append(args))
    monkeypatch.setattr(sys, 'argv', ['bootstrap'])
    assert steps.main() == 0
    assert len(taken) == steps_taken
