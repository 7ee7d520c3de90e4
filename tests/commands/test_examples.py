"""The example at the end of each command's help runs as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from _helpers.breaking import broken_run
from _helpers.tiny import build
from _helpers.work_folders import start, training
from mmengine.config import Config

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.__main__ import COMMANDS, main
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.pictures.canvas import build_model

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ('similarity', 'imitation-mask', 'areas', 'attention', 'features', 'predictions')
HELPS = [*([name] for name in COMMANDS), *(['visualize', name] for name in PICTURES)]
WRITES = {
    'compress': 'work_dirs/tucker/retina_r34_tucker.py',
    'export': 'work_dirs/student.pth',
    'print-config': 'expanded.py',
    'report': 'work_dirs/report.html',
    'visualize': 'work_dirs/imitation_mask.png',
    **{f'visualize {name}': f'work_dirs/{name.replace("-", "_")}.png' for name in PICTURES},
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set, the checkpoint, the logs and the kept step that the examples name."""
    folder = tmp_path_factory.mktemp('examples')
    ensure_coco_mini(folder / 'data/coco_mini', MiniSettings(train=4, val=2), report=lambda line: None)
    student = build_model(Config.fromfile(ROOT / 'configs/coco_mini/pspnet_r18.py'))
    with pytest.raises(DistillError):
        build(broken_run(folder / 'work_dirs/my_run', 'nan', 1)).train()
    (folder / 'work_dirs/my_run/fault_iter_1').rename(folder / 'work_dirs/my_run/fault_iter_120')
    for name in ('distilled', 'alone'):
        start(folder / 'work_dirs' / name, '20260101_000000', [training(10, loss=1.0)])
    torch.save(dict(state_dict=student.state_dict()), folder / 'distilled.pth')
    return folder


def example(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the help of a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main([*command, '--help'])
    assert ended.value.code == 0
    head, line = capsys.readouterr().out.rstrip().rsplit('\n', 1)
    assert head.endswith('example:')
    return line.strip()


@pytest.mark.parametrize('command', HELPS, ids=' '.join)
def test_example_runs(
    command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == ['compress']:
        pytest.importorskip('tensorly')
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(example(command, capsys))
    assert [program, *arguments[: len(command)]] == ['mmkd', *command]
    written = WRITES.get(' '.join(command))
    if written:
        Path(written).unlink(missing_ok=True)
    status = main(arguments)
    # What the doctor finds is the machine's own affair.
    assert status == 0 or (status == 1 and command == ['doctor'])
    printed = capsys.readouterr().out
    assert Path(written).stat().st_size if written else printed
