"""What ``mmkd check`` prints is what there is, and its mistakes are sentences."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from _helpers.tiny import block, run_config
from mmengine.config import Config

from mmkd_plugin.__main__ import main
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.engine.inspection import StepReport
from mmkd_plugin.study.check import Check
from mmkd_plugin.study.check_tables import cost_rows, label_text, print_check, time_lines
from mmkd_plugin.study.compare import first_teacher, teacher_config
from mmkd_plugin.study.evaluation import Metric
from mmkd_plugin.study.first_batches import BOXES, FirstBatches, Truth
from mmkd_plugin.study.runs import test_once
from mmkd_plugin.study.turns import StepCost
from mmkd_plugin.teachers import local_file

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


def found(**changes) -> Check:
    """A check of 90 iterations; a step takes 0.4 s and 0.1 s, a batch 0.2 s without workers."""
    values: dict[str, Any] = dict(
        models=dict(student='small [one]', teacher='large'),
        images=120,
        batch_size=4,
        per_epoch=30,
        workers=0,
        data=FirstBatches([], seconds=0.2, read=7),
        truth=Truth(BOXES, [3, 0, 2, 3]),
        iterations=90,
        epochs=3,
        steps=5,
        report=StepReport(1.0, ['teacher weights: all']),
        distilled=StepCost(seconds=0.4, held=3 * MIB, peak=9 * MIB),
        alone=StepCost(seconds=0.1, held=1 * MIB, peak=6 * MIB),
    )
    values.update(changes)
    return Check(**values)


def test_costs_and_their_ratios() -> None:
    assert cost_rows(found()) == [
        ('distilled', '0.400', '4.00 x', '0.200', '9.0 MiB', '1.50 x', '3.0 MiB'),
        ('student alone', '0.100', '-', '0.200', '6.0 MiB', '-', '1.0 MiB'),
    ]
    # Workers load during the step: only the student alone has to wait for them.
    assert [row[3] for row in cost_rows(found(workers=2))] == ['0.000', '0.100']
    assert cost_rows(found(alone=None)) == [('distilled', '0.400', '-', '0.200', '9.0 MiB', '-', '3.0 MiB')]


def test_length_of_the_run() -> None:
    """90 x (0.4 + 0.2) s = 54 s; alone 90 x (0.1 + 0.2) = 27 s. With workers 90 x 0.4 and 90 x 0.2."""
    assert time_lines(found())[0].startswith(
        'The whole run takes about 54 s for 90 iterations (3 epochs of 30); the student alone: 27 s.'
    )
    assert 'about 36 s for 90 iterations; the student alone: 18 s.' in time_lines(found(workers=2, epochs=None))[0]
    assert 'about 27 s for 90 iterations (3 epochs of 30). ' in time_lines(found(distilled=None))[0]


def test_labels_in_words() -> None:
    assert label_text(BOXES, [3, 0, 2, 3]) == '8 boxes in 4 images: 2.0 per image, 0 to 3; 1 image without any'
    assert label_text('', []).startswith('not counted')


def test_everything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    metrics = [Metric('teacher', 'mAP', 0.512)]
    print_check(Console(width=120), found(metrics=metrics, warnings=['Look [here].'], notes=['Known.']))
    shown = capsys.readouterr().out
    for expected in (
        'small [one]',
        '120 images, 30 batches of 4',
        '7 batches, 0.200 s each with no workers',
        'teacher weights: all',
        'On the validation data: teacher mAP 51.2.',
        'A value near 0 would mean wrong classes, weights or data.',
        'note: Known.',
        'warning: Look [here].',
        'Training may begin, but look at the warnings.',
    ):
        assert expected in shown
    metrics.append(Metric('student', 'mAP', 0.25))
    print_check(Console(width=120), found(metrics=metrics))
    shown = capsys.readouterr().out
    assert 'student mAP 25.0.' in shown and 'A value near 0' not in shown
    assert shown.endswith('Training may begin.\n')


def test_on_coco_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All four images make a batch of eight with each of them twice, so that the boxes are those of the file."""
    import json

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    ensure_coco_mini('data/coco_mini', MiniSettings(train=4, val=2), report=lambda line: None)
    name = 'mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py'
    assert main(['check', name, '--steps', '2', '--evaluate-teacher']) == 0
    printed = capsys.readouterr()
    shown = printed.out
    boxes = len(json.loads(Path('data/coco_mini/annotations/instances_train.json').read_text())['annotations'])
    assert f'{8 * boxes} boxes in 32 images' in shown
    assert '4 images, 1 batch of 8' in shown and '4 batches, ' in shown
    assert 'for 800 iterations; the student alone: ' in shown
    assert 'a step, on ' in shown and 'loss_fgd_level0' in shown
    assert len(re.findall(r'│ (?:distilled|student alone) +│ +\d+\.\d{3} │', shown)) == 2
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith('torch')] == ['data']
    assert [line.split()[0] for line in printed.err.splitlines() if line.endswith(' ...')] == [
        'Building',
        'Reading',
        'Taking',
        'Evaluating',
    ]
    cfg = Config.fromfile(local_file(name))
    teacher = local_file(str(first_teacher(cfg).teacher_ckpt))
    value = test_once('teacher', teacher_config(cfg), teacher, tmp_path / 'test').metrics['coco/bbox_mAP']
    assert f'On the validation data: teacher mAP {100 * value:.1f}.' in shown and value > 0.1


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--steps', '0'], '--steps is "0", but takes a whole number of at least 1.'),
        (['--steps', 'many'], '--steps is "many", but takes a whole number of at least 1.'),
        (['--student', 'a.pth'], '--student is what the teacher is compared with; give --evaluate-teacher too.'),
        (['--evaluate-teacher'], 'The config has no validation data to evaluate the teacher on; '),
        (['--cfg-options', 'distill.methods.fgd.type=FGDD'], 'FGD'),
        (['--cfg-options', 'train_dataloader.dataset.type=TinyBox'], 'TinyBox'),
    ],
)
def test_mistakes_are_sentences(
    arguments: list, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    path = tmp_path / 'config.py'
    run_config(tmp_path / 'work', distill=block()).dump(path)
    with pytest.raises(SystemExit) as ended:
        main(['check', str(path), *arguments])
    error = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert error[-1].startswith('error: ') and sentence in error[-1]
    assert all(line.endswith(' ...') for line in error[:-1])
    assert not list(tmp_path.glob('mmkd_check_*')) and not (tmp_path / 'work').exists()


def test_config_without_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['check', 'mmkd_plugin::coco_mini/retina_r18.py'])
    assert capsys.readouterr().err.startswith('error: The config has no distill block, so there is nothing to check; ')
