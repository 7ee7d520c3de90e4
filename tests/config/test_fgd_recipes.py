"""The FGD recipes hold the authors' weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmkd_plugin.config import DistillBlock

FOLDER = Path(__file__).parents[2] / 'configs' / '_base_' / 'fgd'
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


def test_full_recipe_fits_six_lines():
    text = (FOLDER.parents[1] / 'fgd' / 'retina_r101_to_r50.py').read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 6
