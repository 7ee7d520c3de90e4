"""The FGD recipes hold the authors' weights."""

from __future__ import annotations

from pathlib import Path

import mmdet
import pytest
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.probe.models import probe

FOLDER = Path(__file__).parents[2] / 'configs' / '_base_' / 'fgd'
FULL = sorted((FOLDER.parents[1] / 'fgd').glob('*.py'))
ZOO = Path(mmdet.__file__).parent / '.mim' / 'configs'
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


def zoo_weights(config: str) -> str:
    """Address of the weights that the zoo lists for one of its configs."""
    (entry,) = [
        entry
        for entry in (ZOO / config).with_name('metafile.yml').read_text().split('Name: ')
        if f'Config: configs/{config}\n' in entry
    ]
    return yaml.safe_load(entry[entry.index('Weights: ') :].splitlines()[0])['Weights']


@pytest.mark.parametrize('file', FULL, ids=lambda file: file.stem)
def test_full_recipe_is_short_and_names_the_zoos_weights(file):
    cfg = Config.fromfile(file)
    block = DistillBlock.parse(cfg.distill)
    block.require_teacher()
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= 6
    (teacher,) = block.teachers.values()
    assert teacher.teacher_ckpt == zoo_weights(teacher.teacher.replace('mmdet::', ''))
    assert list(block.methods) == ['fgd']
    # Where the authors inherit, a teacher with other heads must be refused rather than passed over.
    assert block.inherit == (not any(other in file.stem for other in ('cascade', 'solo', 'yolox')))


@pytest.mark.parametrize(
    ('name', 'convolutions'),
    [
        ('retina_r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(5)]),
        ('faster-rcnn_r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(4)]),
        ('reppoints_x101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(5)]),
        ('solo_solov2-r101_to_r50', [f'neck.fpn_convs.{level}.conv' for level in range(4)]),
        ('yolox_l_to_m', [f'neck.out_convs.{level}.conv' for level in range(3)]),
    ],
)
def test_levels_are_the_authors(name, convolutions):
    init_default_scope('mmdet')
    model = Config.fromfile(FOLDER.parents[1] / 'fgd' / f'{name}.py').model
    student = MODELS.build(model)
    assert [tap.source for tap in probe(student, 'student').pre_norm] == convolutions
