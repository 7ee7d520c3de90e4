"""A comparison trains, tests on the test split, tabulates and draws, for segmentors as for detectors."""

from __future__ import annotations

import io
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from PIL import Image
from rich.console import Console

pytest.importorskip('mmseg')

from _helpers import tiny_seg

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.compare import Comparison, compare, first_teacher, picture, teacher_config
from mmkd_plugin.study.pictures.spread import spread_picture
from mmkd_plugin.study.runs import Outcome, progress_bar, test_once, train_once

CLASSES = 7
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Student alone and distilled on COCO-mini's maps, validated on one split and tested on the other."""
    folder = tmp_path_factory.mktemp('study')
    data = ensure_coco_mini(folder / 'data', MiniSettings(train=6, val=4, size=64), report=lambda line: None)

    def loader(split, **more):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
        prefix = dict(img_path=split, seg_map_path=f'semantic/{split}')
        dataset = dict(
            type='mmkd_plugin.CocoMiniSegDataset', data_root=str(data), data_prefix=prefix, pipeline=pipeline
        )
        return dict(batch_size=2, num_workers=0, dataset=dataset, **more)

    config = tiny_seg.run_config(
        folder,
        iterations=2,
        model=tiny_seg.pspnet(classes=CLASSES),
        train_dataloader=loader('train', sampler=dict(type='InfiniteSampler', shuffle=True)),
        val_dataloader=loader('train', sampler=dict(type='DefaultSampler', shuffle=False)),
        test_dataloader=loader('val', sampler=dict(type='DefaultSampler', shuffle=False)),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
    )
    config.train_cfg.val_interval = 2
    config.dump(folder / 'student.py')
    teacher = tiny_seg.pspnet(width=24, classes=CLASSES)
    init_default_scope('mmseg')
    torch.save(dict(state_dict=ROOT_MODELS.build(teacher).state_dict()), folder / 'teacher.pth')
    config.distill = dict(
        teacher=teacher,
        teacher_ckpt=str(folder / 'teacher.pth'),
        methods=dict(pixel=dict(type='PixelWise'), pair=dict(type='PairWise')),
    )
    config.dump(folder / 'distilled.py')
    comparison = Comparison(
        str(folder / 'student.py'), {'pixel + pair': str(folder / 'distilled.py')}, [0, 1], folder / 'runs'
    )
    out = io.StringIO()
    console = Console(file=out, width=160)
    groups = compare(comparison, console)
    return comparison, groups, out


def test_every_model_and_seed_is_there(study):
    _, groups, _ = study
    assert [(group[0].name, len(group)) for group in groups] == [
        ('teacher', 1),
        ('student alone', 2),
        ('pixel + pair', 2),
    ]
    assert all(0 <= outcome.metrics['mIoU'] <= 1 for group in groups for outcome in group)


def test_students_are_measured_on_the_test_split(study, tmp_path):
    comparison, groups, _ = study
    outcome = groups[1][0]
    again = test_once('again', comparison.student, outcome.checkpoint, tmp_path)
    assert again.metrics['mIoU'] == pytest.approx(outcome.metrics['mIoU'])


def test_table_has_the_columns_of_segmentation(study):
    comparison, _, out = study
    assert 'mean IoU and accuracy in points' in out.getvalue()
    lines = (comparison.work_dir / 'table.md').read_text().splitlines()
    heads = [
        'model',
        'seeds',
        'mIoU',
        'mAcc',
        'gain',
        'verdict',
        'time per iteration',
        'weights',
        'parameters',
        'FLOPs',
    ]
    assert lines[0] == f'| {" | ".join([*heads, "time per image"])} |'
    assert len(lines) == 5


def test_sizes_are_those_of_teacher_and_student(study):
    comparison, groups, _ = study
    runs = json.loads((comparison.work_dir / 'results.json').read_text())
    assert [(run['model'], run['seed']) for run in runs] == [(one.name, one.seed) for group in groups for one in group]
    teacher, alone, _, distilled, _ = runs
    student = ROOT_MODELS.build(Config.fromfile(comparison.student).model)
    assert alone['parameters'] == distilled['parameters'] == sum(value.numel() for value in student.parameters())
    assert alone['flops'] == distilled['flops'] < teacher['flops']
    assert alone['time_per_image'] == 1
    assert distilled['time_per_image'] > 0


def test_every_seed_is_a_dot(study):
    comparison, _, out = study
    assert 'Every seed and the spread' in out.getvalue()
    with Image.open(comparison.work_dir / 'spread.png') as image:
        assert image.size == (800, round(100 * (1.1 + 3 * 0.45)))


def test_long_names_leave_the_words_below_whole(tmp_path):
    groups = [[Outcome(name, 0, {'mIoU': 0.5, 'mAcc': 0.6}, '', 0)] for name in ('a' * 40, 'teacher')]
    with Image.open(spread_picture(groups, 'teacher', tmp_path / 'spread.png')) as image:
        edges = np.asarray(image.convert('L'))[:, [0, -1]]
    assert edges.min() == 255


def test_picture_has_a_column_for_image_truth_and_each_model(study):
    comparison, groups, _ = study
    path = picture(comparison, groups, Console(file=io.StringIO()))
    assert path.name == 'segmentation.png'
    with Image.open(path) as image:
        assert image.size == (5 * 300, round(1 * 300 + 60))


def test_first_of_several_teachers_is_shown():
    teachers = {name: dict(teacher=tiny_seg.pspnet(), teacher_ckpt=f'{name}.pth') for name in ('idle', 'used', 'other')}
    methods = {name: dict(type='PixelWise', teacher=name) for name in ('used', 'other')}
    cfg = Config(dict(model=tiny_seg.pspnet(), distill=dict(teachers=teachers, methods=methods)))
    assert first_teacher(cfg).teacher_ckpt == 'used.pth'
    shown = teacher_config(cfg)
    assert shown.model.type == 'EncoderDecoder'
    assert 'distill' not in shown


def said(comparison):
    """Why a comparison does not start, or what stops it."""
    with pytest.raises(DistillError) as caught:
        compare(comparison, Console(file=io.StringIO()))
    return str(caught.value)


@pytest.fixture
def configs(tmp_path):
    """A student and a block whose teacher has no file, both without data."""
    student = tiny_seg.run_config(tmp_path, iterations=1)
    student.dump(tmp_path / 'student.py')
    student.distill = tiny_seg.block(dict(type='PixelWise'), teacher_ckpt=str(tmp_path / 'none.pth'))
    student.dump(tmp_path / 'distilled.py')
    return str(tmp_path / 'student.py'), str(tmp_path / 'distilled.py')


def test_config_without_a_block_is_no_distilled_one(configs, tmp_path):
    student, distilled = configs
    sentence = said(Comparison(student, {'good': distilled, 'bad': student}, [0], tmp_path / 'runs'))
    assert f'The config "{student}" has no distill block, so there is nothing to compare; inherit' in sentence
    assert not (tmp_path / 'runs').exists()


def test_names_and_seeds_that_make_no_comparison(configs, tmp_path):
    student, distilled = configs
    assert 'The seeds 0 1 0 repeat' in said(Comparison(student, {'mine': distilled}, [0, 1, 0], tmp_path / 'runs'))
    assert '"teacher" is the name of another row' in said(Comparison(student, {'teacher': distilled}, [0], tmp_path))
    assert 'none.py" does not exist' in said(Comparison(student, {'mine': str(tmp_path / 'none.py')}, [0], tmp_path))


def test_block_that_cannot_be_read_names_its_config(configs, tmp_path):
    student, distilled = configs
    options = {'distill.methods.pixel.wight': 1}
    sentence = said(Comparison(student, {'mine': distilled}, [0], tmp_path / 'runs', options))
    assert sentence.startswith(f'The config "{distilled}" ')


def test_missing_teacher_is_said_first(configs, tmp_path):
    student, distilled = configs
    assert 'none.pth" does not exist' in said(Comparison(student, {'mine': distilled}, [0], tmp_path / 'runs'))


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'model.backbone.typo': 1}, 'ResNetV1c has no setting "typo"'),
        ({'optim_wrapper.optimizer.lr': -1}, 'ValueError: Invalid learning rate: -1;'),
    ],
    ids=['known', 'unknown'],
)
def test_run_that_fails_is_named(configs, tmp_path, options, reason):
    student, _ = configs
    with progress_bar() as progress, pytest.raises(DistillError) as caught:
        train_once('student alone', student, 1, tmp_path / 'run', progress, options)
    assert str(caught.value).startswith('The run "student alone", seed 1, failed: ')
    assert reason in str(caught.value)
    assert str(caught.value).endswith(f'Its output is in "{tmp_path}/run/console.log".')
    assert 'Traceback' in (tmp_path / 'run/console.log').read_text()


@pytest.mark.parametrize('content', ['{"name": "student al', '[]', '{"digest": "a", "code": "b"}'])
def test_outcome_that_is_half_written_is_not_taken(configs, tmp_path, content):
    student, _ = configs
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/outcome.json').write_text(content)
    with progress_bar() as progress, pytest.raises(DistillError, match='has no setting "typo"'):
        train_once('student alone', student, 1, tmp_path / 'run', progress, {'model.backbone.typo': 1})


def test_tool_refuses_two_configs_of_one_name(configs, capsys):
    main = runpy.run_path(str(ROOT / 'tools/compare.py'))['main']
    student, distilled = configs
    with pytest.raises(SystemExit) as ended:
        main([student, distilled, distilled])
    assert ended.value.code == 2
    assert 'error: Two configs are called "distilled"' in capsys.readouterr().err
