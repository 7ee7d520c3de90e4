"""Results are kept config by config, and belong to one machine, one config and one state of the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark import results as module
from mmkd_plugin.study.benchmark import session
from mmkd_plugin.study.benchmark.case import Case
from mmkd_plugin.study.benchmark.measure import ALONE, FLOOR, OURS, RAZOR, Measured, Side
from mmkd_plugin.study.benchmark.picture import picture
from mmkd_plugin.study.benchmark.results import all_results, public_name, read_results, results_of
from mmkd_plugin.study.benchmark.session import measure_all
from mmkd_plugin.study.benchmark.table import markdown, memory_rows, quartiles, ratios, time_rows

CASE = Case((32, 32))


def found(rounds: int = 2) -> Measured:
    """The student alone takes 1 and 2 seconds, ours twice that and a tenth."""
    sides = {
        ALONE: Side([1.0, 2.0][:rounds], 50, 100 * 2**20, 7),
        FLOOR: Side([2.0, 4.0][:rounds], 80, 200 * 2**20, 7),
        OURS: Side([2.2, 4.2][:rounds], 80, 210 * 2**20, 9),
    }
    return Measured('RetinaNet ResNet-50', 'RetinaNet ResNet-101', 'FGD', sides, {RAZOR: 'MMRazor has no FGDLoss.'})


def config(weight: int = 1) -> Config:
    return Config(dict(default_scope='mmdet', weight=weight))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The configs that are measured, by their weights."""
    calls: list[str] = []

    def note(cfg: Config, case: Case, rounds: int, *_: object) -> Measured:
        if cfg.weight < 0:
            raise DistillError('No.')
        if cfg.weight > 100:
            raise KeyboardInterrupt
        calls.append(cfg.weight)
        return found(rounds)

    monkeypatch.setattr(session, 'measure', note)
    monkeypatch.setattr(session, 'code_digest', lambda: 'code')
    return calls


def test_a_killed_run_loses_nothing_finished(tmp_path: Path, measured: list) -> None:
    file = tmp_path / 'results.json'
    with pytest.raises(KeyboardInterrupt):
        measure_all({'a.py': config(1), 'b.py': config(101)}, CASE, 2, results_of(file), file)
    rows, failed = measure_all({'a.py': config(1), 'b.py': config(2)}, CASE, 2, results_of(file), file)
    assert measured == [1, 2] and failed == 0
    assert [row.config for row in rows] == [row.config for row in read_results(file).rows] == ['a.py', 'b.py']
    assert rows[0].measured == found()


def test_others_go_on_where_one_fails(tmp_path: Path, measured: list, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / 'results.json'
    rows, failed = measure_all({'a.py': config(-1), 'b.py': config(2)}, CASE, 2, results_of(file), file)
    assert (len(rows), failed, measured) == (1, 1, [2])
    assert 'a.py: FAILED: No.' in capsys.readouterr().out
    with pytest.raises(DistillError, match='No'):
        measure_all({'a.py': config(-1)}, CASE, 2, results_of(file), file, whole=True)


def test_what_has_changed_is_measured_again(tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'results.json'

    def again(cfg: Config, case: Case = CASE, rounds: int = 2, any_code: bool = False) -> int:
        before = len(measured)
        measure_all({'a.py': cfg}, case, rounds, results_of(file), file, any_code)
        return len(measured) - before

    assert [again(config()), again(config()), again(config(), rounds=1)] == [1, 0, 0]
    assert again(config(3)) == 1
    assert len(read_results(file).rows) == 1, 'it takes the place of the old one'
    assert again(config(3), Case((64, 64))) == 1 and len(read_results(file).rows) == 2
    monkeypatch.setattr(session, 'code_digest', lambda: 'another')
    assert again(config(3), any_code=True) == 0
    assert again(config(3)) == 1


def test_more_rounds_are_measured_anew(tmp_path: Path, measured: list) -> None:
    file = tmp_path / 'results.json'
    for rounds in (1, 2):
        measure_all({'a.py': config()}, CASE, rounds, results_of(file), file)
    assert len(measured) == 2 and read_results(file).rows[0].rounds == 2


def test_another_machine_has_another_file(tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'results.json'
    measure_all({'a.py': config()}, CASE, 2, results_of(file, 'two cores'), file)
    assert results_of(file).machine['note'] == 'two cores'
    machine = module.this_machine()
    monkeypatch.setattr(module, 'this_machine', lambda: {**machine, 'cpu': 'Abacus'})
    with pytest.raises(DistillError, match="here it is 'Abacus'; give another folder with --out") as error:
        results_of(file)
    assert str(error.value).count('\n') == 0


@pytest.mark.parametrize('text', ['', '[]', '{"machine": {}, "rows": [{}]}', '{"machine": {}, "rows": [1]}'])
def test_a_file_that_holds_something_else_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / 'results.json'
    file.write_text(text)
    with pytest.raises(DistillError, match='holds no results of "mmkd benchmark"'):
        results_of(file)


def test_the_machine_is_described_without_its_name(tmp_path: Path) -> None:
    import platform

    machine = module.this_machine()
    assert machine['cores'] >= 1 and machine['threads'] >= 1 and machine['cpu'] and machine['torch']
    assert platform.node() not in json.dumps(machine)


def test_names_tell_nothing_of_the_folders_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert public_name('mmkd_plugin::fgd/a.py') == 'mmkd_plugin::fgd/a.py'
    assert public_name(str(tmp_path / 'my/b.py')) == public_name('./my/b.py') == 'my/b.py'
    assert public_name(str(tmp_path.parent / 'elsewhere/c.py')) == 'c.py'


def test_ratios_are_those_of_the_rounds(tmp_path: Path, measured: list) -> None:
    sides = found().sides
    assert ratios(sides[FLOOR], sides[ALONE]) == [2.0, 2.0]
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0) and quartiles([3.0]) == (3.0, 3.0, 3.0)
    rows, _ = measure_all({'a.py': config()}, CASE, 2, results_of(tmp_path / 'r.json'), tmp_path / 'r.json')
    assert time_rows(rows) == [
        (
            'RetinaNet, ResNet-101 to ResNet-50',
            'FGD',
            '2 of 32 x 32, 7 boxes',
            '1.5 s (1.25 to 1.75)',
            '2.00 (2.00 to 2.00)',
            '2.15 (2.12 to 2.18)',
            '-',
            '1.08 (1.06 to 1.09)',
        )
    ]
    assert memory_rows(rows)[0][2:] == ('100 MiB', '2.00', '2.10', '-', '1.05', '7 / 7 / 9 / -')


def test_the_page_of_a_machine(tmp_path: Path, measured: list) -> None:
    file = tmp_path / 'here.json'
    results = results_of(file, 'two cores of mine.')
    measure_all({'a.py': config()}, CASE, 2, results, file)
    text = markdown(all_results(tmp_path)['here'])
    assert text.startswith('two cores of mine: ') and ' 2 rounds.' in text.splitlines()[0]
    assert '- MMRazor, `-`: MMRazor has no FGDLoss. (FGD)' in text
    assert text.count('| RetinaNet, ResNet-101 to ResNet-50 | FGD |') == 2


def test_the_picture_has_a_bar_for_each_side(tmp_path: Path, measured: list) -> None:
    file = tmp_path / 'r.json'
    rows, _ = measure_all({'a.py': config(1), 'b.py': config(2)}, CASE, 2, results_of(file), file)
    assert picture(rows, tmp_path / 'bars.png').read_bytes().startswith(b'\x89PNG')
