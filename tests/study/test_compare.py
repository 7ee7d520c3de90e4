"""A comparison trains, tests on the test split, tabulates and draws, for segmentors as for detectors."""

from __future__ import annotations

import io

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
from mmkd_plugin.study.compare import Comparison, compare, first_teacher, picture, teacher_config
from mmkd_plugin.study.runs import test_once

CLASSES = 7


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
    assert lines[0] == '| model | seeds | mIoU | mAcc | gain | time per iteration | weights |'
    assert len(lines) == 5


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
