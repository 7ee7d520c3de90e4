"""The user's torch stays, and what cannot work ends in a sentence."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


class Recorder:
    """An environment that notes what pip is asked for; installing makes ``torch`` the given version."""

    def __init__(self, torch: str, installed: str = '') -> None:
        self.present = {'torch': torch, 'setuptools': '81.0.0', 'ninja': '1.0' if torch else ''}
        self.installed = installed
        self.asked: list[str] = []

    def versions(self, names: list[str]) -> dict[str, str]:
        return {name: self.present[name] for name in names}

    def pip(self, title: str, *arguments: str) -> None:
        self.asked += arguments
        self.present['torch'] = self.installed


def test_torch_is_pinned_by_default(steps: ModuleType) -> None:
    recorder = Recorder('', installed='2.13.0')
    steps.install_torch(recorder, '')
    assert recorder.asked == ['install', 'setuptools>=77,<82', 'ninja', 'torch==2.13.0']


def test_torch_in_the_range_stays(steps: ModuleType) -> None:
    recorder = Recorder('2.9.1+cu126')
    steps.install_torch(recorder, '')
    assert recorder.asked == []


def test_choice_of_torch_goes_to_pip_with_its_options(steps: ModuleType) -> None:
    recorder = Recorder('2.13.0', installed='2.9.1')
    steps.install_torch(recorder, 'torch==2.9.1 --find-links /wheels')
    assert recorder.asked[-3:] == ['torch==2.9.1', '--find-links', '/wheels']


def test_torch_outside_the_range_is_refused_before_it_is_fetched(steps: ModuleType) -> None:
    recorder = Recorder('')
    with pytest.raises(steps.SetupError, match=r'torch 2\.5\.1 is outside the tested range >=2\.6,<2\.14'):
        steps.install_torch(recorder, 'torch==2.5.1')
    assert recorder.asked == []


def test_torch_that_turns_out_to_be_outside_is_refused(steps: ModuleType) -> None:
    with pytest.raises(steps.SetupError, match=r"outside .*; choose one in it, for instance TORCH='torch==2\.13\.0'"):
        steps.install_torch(Recorder('', installed='2.14.0'), 'torch')


def test_machine_without_graphics_libraries_gets_headless_opencv(steps: ModuleType) -> None:
    class Headless:
        python = Path('python')
        packages = ['opencv-python']

        def ask(self, code: str) -> str | None:
            return '5.0' if self.packages == ['opencv-python-headless'] else None

        def pip(self, title: str, *arguments: str) -> None:
            if arguments[0] == 'uninstall':
                self.packages.remove(arguments[-1])
            else:
                self.packages.append(arguments[-1])

    machine = Headless()
    steps.require_opencv(machine)
    assert machine.packages == ['opencv-python-headless']


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
    assert steps.main() == 0
    assert len(taken) == steps_taken
