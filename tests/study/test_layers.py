"""The layers of a config's models: which teacher, which configs, and what the tables show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from rich.console import Console

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from _helpers import tiny

from mmkd_plugin.__main__ import main
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.comparison import known_rows
from mmkd_plugin.study.layer_tables import human, print_layers
from mmkd_plugin.study.layers import ConfigLayers, config_layers

ROOT = Path(__file__).resolve().parents[2]


def config(**distill: Any) -> Config:
    changes: dict[str, Any] = dict(distill=distill) if distill else {}
    return tiny.run_config('unused', **changes)


def two_teachers() -> Config:
    wide, large = (dict(teacher=tiny.retinanet(width=width), teacher_ckpt='none.pth') for width in (24, 32))
    return config(teachers=dict(wide=wide, large=dict(large, teacher_scale=2.0)))


def test_teacher_needs_neither_weights_nor_methods() -> None:
    found = config_layers(config(teacher=tiny.retinanet(width=24), teacher_ckpt='no_such.pth'))
    assert found.teacher is not None
    assert found.student.layers['neck.fpn_convs.0'].shapes == ((16, 32, 32),)
    assert found.teacher.layers['neck.fpn_convs.0'].shapes == ((24, 32, 32),)


def test_config_without_a_block_has_a_student_alone() -> None:
    assert config_layers(config()).teacher is None


def test_first_of_several_teachers_or_the_one_that_is_named() -> None:
    first, second = config_layers(two_teachers()), config_layers(two_teachers(), 'large')
    assert first.teacher is not None and second.teacher is not None
    assert (first.teacher_name, first.teacher.output[0].shapes) == ('wide', ((24, 32, 32),))
    assert (second.teacher_name, second.teacher.output[0].shapes) == ('large', ((32, 32, 32),))
    assert [known.strides for known in second.teacher.output] == [(4,), (8,), (16,)]


@pytest.mark.parametrize(
    ('cfg', 'sentence'),
    [
        (two_teachers(), 'The config has no teacher "lage": did you mean "large"'),
        (config(teacher=tiny.retinanet()), 'The config has one teacher, which has no name; leave "--teacher lage" out'),
        (config(), 'The config has no teacher; leave "--teacher lage" out'),
    ],
)
def test_unknown_teacher(cfg: Config, sentence: str) -> None:
    with pytest.raises(DistillError, match=sentence):
        config_layers(cfg, 'lage')


def test_model_that_cannot_be_built() -> None:
    cfg = config()
    cfg.model.backbone.type = 'ResNt'
    with pytest.raises(
        DistillError, match=r'"RetinaNet" cannot be built \(ResNt is not in the mmdet::model registry\)'
    ):
        config_layers(cfg)
    with pytest.raises(DistillError, match='The config holds no "model"'):
        config_layers(Config(dict(work_dir='x')))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'role', 'path'),
    [
        ('fgd/retina_r101_to_r50.py', 'neck level 4', 'neck.fpn_convs.4'),
        ('fgd/faster-rcnn_r101_to_r50.py', 'RoI head', ''),
        ('structured_seg/pspnet_r101_to_r18_cityscapes.py', 'decode head logits', 'decode_head.conv_seg'),
    ],
)
def test_full_models(name: str, role: str, path: str) -> None:
    found = config_layers(Config.fromfile(ROOT / 'configs' / name))
    row = next(row for row in known_rows(found.student, found.teacher) if row.role == role)
    assert row.student is not None and row.teacher is not None
    assert (row.student.path, row.teacher.path) == (path, path)


def shown(found: ConfigLayers, width: int) -> str:
    """Everything that the command prints, on a console of a width."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_layers(console, found)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_table_has_a_line_for_each_layer() -> None:
    lines = shown(config_layers(config(teacher=tiny.retinanet(width=24))), 1000).splitlines()
    cells = [line.split() for line in lines]
    level = ['neck', 'level', '0', 'neck.fpn_convs.0', '16x32x32', '8', '24x32x32', '8', 'channels', 'differ']
    # 3 x 3 from 16 to 16 channels and from 24 to 24, with bias.
    layer = ['neck.fpn_convs.0', 'ConvModule', '16x32x32', '8', '2.32', 'K', '24x32x32', '8', '5.21', 'K']
    assert level in cells
    assert [*layer, 'neck', 'level', '0'] in cells
    head = ['bbox_head.retina_cls', 'Conv2d', '2x32x32', '...', '8', 'to', '32', '290']
    assert any(line[:8] == head for line in cells)


def test_levels_that_differ_in_path_name_both() -> None:
    text = shown(config_layers(two_teachers(), 'large'), 1000)
    assert 'neck.fpn_convs.0 / neck.fpn_convs.1' in text
    assert 'student: neck level 0; teacher: neck level (unpaired)' in text
    assert 'the teacher sees images 2 times as large' in text
    assert 'teacher "large": RetinaNet' in text


def test_narrow_console_cuts_nothing() -> None:
    text = shown(config_layers(config()), 50)
    assert '…' not in text


@pytest.mark.parametrize(
    ('count', 'text'),
    [(0, '-'), (32, '32'), (1000, '1 K'), (2352, '2.35 K'), (999_700, '1 M'), (764_123, '764 K'), (38_000_000, '38 M')],
)
def test_numbers_of_parameters(count: int, text: str) -> None:
    assert human(count) == text


def test_command_lists_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / 'student.py')
    config(teacher=tiny.retinanet(width=24)).dump(path)

    def run(*options: str) -> list[str]:
        assert main(['layers', path, *options]) == 0
        return capsys.readouterr().out.splitlines()

    usual, everything, some = run(), run('--all'), run('--match', '*layer1.0.conv?')
    assert not any(line.startswith('backbone.layer1.0') for line in usual)
    hidden = len(everything) - len(usual) + 1
    assert usual[-1].startswith(f'{hidden} modules within these are not shown; --all shows them')
    assert any(line.startswith('backbone.layer1.0.conv1 ') for line in everything)
    assert [line.split()[0] for line in some[-2:]] == ['backbone.layer1.0.conv1', 'backbone.layer1.0.conv2']
