"""The FGD recipes hold the authors' weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from _helpers.zoo import zoo_weights
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.methods.fgd import FGDLoss
from mmkd_plugin.probe.models import probe

FOLDER = Path(__file__).parents[2] / 'configs' / '_base_' / 'fgd'
FULL = sorted((FOLDER.parents[1] / 'fgd').glob('*_to_*.py'))
AUTHORS = {
    'one_stage': (0.5, 1e-3, 5e-4, 5e-4, 5e-6),
    'two_stage': (0.5, 5e-5, 2.5e-5, 5e-5, 5e-7),
    'fcos': (0.8, 1.6e-3, 8e-4, 8e-4, 8e-6),
    'reppoints': (0.5, 1.6e-3, 8e-4, 8e-4, 8e-6),
    'yolox': (0.5, 2e-3, 1e-3, 1e-3, 1e-5),
}


def test_every_recipe_is_listed():
    assert {file.stem for file in FOLDER.glob('*.py')} == set(AUTHORS)


@pytest.mark.parametrize('name', AUTHORS)
def test_weights(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    assert cfg.runner_type == 'mmkd_plugin.DistillRunner'
    block = DistillBlock.parse(cfg.distill)
    fgd = block.methods['fgd']
    assert AUTHORS[name] == (
        fgd.temperature,
        fgd.foreground_weight,
        fgd.background_weight,
        fgd.attention_weight,
        fgd.relation_weight,
    )
    assert block.inherit == (False if name == 'yolox' else 'auto')


@pytest.mark.parametrize('file', FULL, ids=lambda file: file.stem)
def test_full_recipe_is_short_and_names_the_zoos_weights(file):
    cfg = Config.fromfile(file)
    block = DistillBlock.parse(cfg.distill)
    block.require_teacher()
    # The authors' student of FCOS is none of the zoo.
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= (20 if 'fcos' in file.stem else 6)
    (teacher,) = block.teachers.values()
    if file.stem == 'solo_r101_to_r50':
        assert teacher.teacher == 'mmkd_plugin::fgd/solo_r101_3x.py'
    else:
        assert teacher.teacher_ckpt == zoo_weights(teacher.teacher)
    assert list(block.methods) == ['fgd']
    # Where the authors inherit, a teacher with other heads must be refused rather than passed over.
    inherited = not any(other in file.stem for other in ('cascade', 'solov2', 'yolox'))
    assert block.inherit == ('matching' if 'fcos' in file.stem else inherited)


@pytest.mark.parametrize(
    ('name', 'convolutions'),
    [
        ('retina_r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(5)]),
        ('faster-rcnn_r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(4)]),
        ('reppoints_x101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(5)]),
        ('solo_solov2-r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(4)]),
        ('solo_r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(4)]),
    ],
)
def test_levels_are_the_authors(name, convolutions):
    init_default_scope('mmdet')
    model = Config.fromfile(FOLDER.parents[1] / 'fgd' / f'{name}.py').model
    student = MODELS.build(model)
    assert [tap.source for tap in probe(student, 'student').pre_norm] == convolutions


def test_yolox_is_compared_behind_norm_and_activation():
    """The neck returns what its last blocks make, ConvModules with norm and Swish, which the authors tap."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(FOLDER.parents[1] / 'fgd' / 'yolox_l_to_m.py')
    fgd = DistillBlock.parse(cfg.distill).methods['fgd']
    assert (fgd.tap, tuple(fgd.usual_size)) == ('output', (640, 640))
    student = MODELS.build(cfg.model).eval()
    made = []
    for block in student.neck.out_convs:
        assert block.with_norm and block.with_activation
        block.register_forward_hook(lambda module, inputs, output: made.append(output))
    returned = student.extract_feat(torch.rand(1, 3, 64, 64))
    assert len(made) == len(returned) == 3
    assert all(one is other for one, other in zip(made, returned))


def test_the_students_of_fcos_differ_as_the_authors_do():
    cfg = Config.fromfile(FOLDER.parents[1] / 'fgd' / 'fcos_r101_to_r50.py')
    head = cfg.model.bbox_head
    assert (head.norm_on_bbox, head.center_sampling, head.conv_bias, head.loss_bbox.type) == (
        True,
        True,
        True,
        'GIoULoss',
    )
    assert not head.get('centerness_on_reg', False)
    assert cfg.model.test_cfg.nms.iou_threshold == 0.6
    assert cfg.model.data_preprocessor.mean == [103.530, 116.280, 123.675]
    assert cfg.optim_wrapper.clip_grad.max_norm == 35
    assert cfg.param_scheduler[1].milestones == [16, 22] and cfg.train_cfg.max_epochs == 24


@pytest.mark.parametrize(
    ('name', 'terms'),
    [
        ('foreground', {'foreground'}),
        ('background', {'background'}),
        ('apart', {'foreground', 'background'}),
        ('together', {'background'}),
        ('spatial', {'foreground', 'background', 'attention'}),
        ('channel', {'foreground', 'background', 'attention'}),
        ('focal', {'foreground', 'background', 'attention'}),
        ('relation', {'relation'}),
    ],
)
def test_ablations(name, terms):
    (fgd,) = DistillBlock.parse(Config.fromfile(FOLDER / 'ablations' / f'{name}.py').distill).methods.values()
    loss = FGDLoss(channels=4, **{key: value for key, value in fgd.options.items()})
    assert set(loss.weights) == terms
    assert (loss.together, loss.attend) == (name == 'together', name if name in ('spatial', 'channel') else 'both')
