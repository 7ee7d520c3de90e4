"""Every full config that is shipped is expanded with its teacher, both models as large as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.block import DistillBlock, expand, expand_config
from mmkd_plugin.cli import load_config
from mmkd_plugin.compat.checkpoint import build_safely
from mmkd_plugin.probe.models import ModelTaps, probe
from mmkd_plugin.study.one_step import walk
from mmkd_plugin.study.recipes.check import shipped_recipes
from mmkd_plugin.teachers import LoadedTeacher, build_teacher

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'
RECIPES = shipped_recipes()

_TAPS: dict[str, ModelTaps] = {}


class Planned(nn.Module):
    """Stands for a model until it is probed; recipes share most of theirs, and expanding asks for the taps alone."""

    def __init__(self, config: dict, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.key = repr(config)
        self.build = build

    def taps(self, role: str) -> ModelTaps:
        if self.key not in _TAPS:
            _TAPS[self.key] = probe(self.build(), role)
        return _TAPS[self.key]


@pytest.fixture
def _each_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build and run each model for the first recipe that has it, without drawing weights, which nothing here reads."""
    for name in ('kaiming_uniform_', 'kaiming_normal_', 'xavier_uniform_', 'uniform_', 'normal_', 'trunc_normal_'):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(expand, 'build_safely', lambda config: Planned(config, lambda: build_safely(config)))
    monkeypatch.setattr(
        expand,
        'build_teacher',
        lambda config: LoadedTeacher(Planned(config, lambda: build_teacher(config).model), 'as built', {}),
    )
    monkeypatch.setattr(expand, 'probe', lambda model, role: model.taps(role))


def classes(model: dict) -> set[int]:
    """How many classes the heads of a model tell apart."""
    return {node['num_classes'] for node in walk(model) if isinstance(node.get('num_classes'), int)}


def test_recipes_are_the_full_configs_with_a_block() -> None:
    names = {name.replace('mmkd_plugin::', '') for name in RECIPES}
    assert names <= {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob('*/*.py')}
    assert {'fgd/yolox_l_to_m.py', 'structured_seg/pspnet_r101_to_espnet_camvid.py'} <= names
    # A teacher alone, a base, a small pair.
    others = {'fgd/solo_r101_3x.py', '_base_/models/espnet.py', 'coco_mini/fgd_retina_r34_to_r18.py'}
    assert not names & others and all((CONFIGS / name).is_file() for name in others - {'_base_/models/espnet.py'})


@pytest.mark.usefixtures('_each_model_once')
@pytest.mark.parametrize('name', RECIPES, ids=lambda name: name.replace('mmkd_plugin::', ''))
def test_recipe_expands_with_its_teacher(name: str) -> None:
    cfg = load_config(name)
    block = DistillBlock.parse(cfg.distill)
    model = expand_config(cfg).model
    losses = list(model.distiller.distill_losses)
    for method in block.methods:
        assert any(f'{loss}_'.startswith(f'loss_{method}_') for loss in losses), f'{method} gives no loss'
    assert list(model.teachers) == list(block.used_teachers())
    for teacher in model.teachers.values():
        assert teacher.teacher_ckpt
        assert classes(teacher.teacher) == classes(cfg.model)
