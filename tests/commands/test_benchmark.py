"""``mmkd benchmark`` says what is wrong before it measures, and goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.__main__ import main

DETECTOR = 'mmkd_plugin::coco_mini/pkd_retina_r34_to_r18.py'
SEGMENTOR = 'mmkd_plugin::coco_mini/pixel_pspnet_r34_to_r18.py'
ALONE = 'mmkd_plugin::coco_mini/retina_r18.py'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        main(['benchmark', *arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([DETECTOR, '--size', '320by320'], '--size is "320by320", but takes height and width in pixels'),
        ([DETECTOR, '--size', '0x8'], '--size is "0x8"'),
        ([DETECTOR, '--batch', '0'], '--batch is "0", but takes a whole number of at least 1'),
        ([DETECTOR, '--rounds', 'few'], '--rounds is "few"'),
        ([DETECTOR, '--boxes', '-1'], '--boxes is "-1", but takes a whole number of at least 0'),
        ([DETECTOR, '--device', 'tpu'], '--device is "tpu"; give cpu, cuda'),
        ([DETECTOR, '--data', '--size', '64'], 'leave one of the two out'),
        ([DETECTOR, ALONE], 'coco_mini/retina_r18.py" cannot be measured: The config has no distill block'),
        ([DETECTOR, 'no_such.py'], 'no_such.py'),
        ([SEGMENTOR, '--boxes', '3', '--device', 'cpu'], '--boxes is for detectors'),
        ([DETECTOR, '--cfg-options', 'distill.methods.pkd.levls=3'], '"levels"'),
    ],
)
def test_a_mistake_is_said_before_anything_is_measured(
    arguments: list, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in said(capsys, *arguments)
    assert not Path('work_dirs').exists()


def test_results_of_something_else_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path('out').mkdir()
    Path('out/results.json').write_text('{"mine": 1}')
    assert 'holds no results of "mmkd benchmark"' in said(capsys, DETECTOR, '--out', 'out', '--device', 'cpu')
    assert Path('out/results.json').read_text() == '{"mine": 1}'


def test_a_table_a_picture_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    command = ['benchmark', DETECTOR, '--size', '64', '--rounds', '1', '--device', 'cpu', '--out', 'out']
    assert main([*command, '--machine', 'a desk']) == 0
    first = capsys.readouterr().out
    assert 'RetinaNet, ResNet-34' in first and 'PKDLoss' in first
    results = json.loads(Path('out/results.json').read_text())
    (row,) = results['rows']
    assert row['config'] == DETECTOR and results['machine']['note'] == 'a desk'
    assert set(row['measured']['sides']) == {'alone', 'floor', 'ours', 'mmrazor'}
    assert Path('out/table.md').read_text().startswith('a desk: ')
    assert Path('out/benchmark.png').read_bytes().startswith(b'\x89PNG')
    assert main(command) == 0
    assert 'measured before' in capsys.readouterr().out
    assert json.loads(Path('out/results.json').read_text()) == results
