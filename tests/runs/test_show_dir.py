"""``tools/test.py --show-dir`` draws every test image, for detectors and segmentors alike."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mmcv
import pytest
import torch
from _helpers.on_disk import detector, segmentor
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError

SCRIPT = Path(__file__).parents[2] / 'tools/test.py'
IMAGES = [f'{number:012d}' for number in (500001, 500002, 500003)]
HOOKS: dict[str, dict[str, Any]] = {
    'named': dict(
        det=dict(type='DetVisualizationHook'),
        seg=dict(type='SegVisualizationHook', interval=50),
    ),
    'missing': dict(det=None, seg=None),
}


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    """The command line as a module."""
    spec = importlib.util.spec_from_file_location('mmkd_test_tool', SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three test images."""
    root = tmp_path_factory.mktemp('data') / 'coco_mini'
    return ensure_coco_mini(root, MiniSettings(train=1, val=len(IMAGES), size=64), report=lambda _: None)


def shown(
    tool: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, values: dict, hook: dict | None, **changes: Any
) -> Path:
    """Test a config with ``--show-dir shown`` in a folder; gives the folder with the images."""
    if hook is not None:
        changes['default_hooks'] = dict(visualization=hook)
    run = dict(
        test_cfg=dict(type='TestLoop'),
        experiment_name=f'show_{folder.name}',
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
    )
    Config({**values, **run, **changes}).dump(folder / 'config.py')
    torch.save(dict(state_dict=MODELS.build(values['model']).state_dict()), folder / 'model.pth')
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', ['test.py', 'config.py', 'model.pth', '--show-dir', 'shown'])
    tool.main()
    return folder / 'shown'


@pytest.mark.parametrize('hook', HOOKS)
def test_detections_land_in_the_folder(
    tool: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    found = shown(tool, tmp_path, monkeypatch, detector(data), HOOKS[hook]['det'])
    assert sorted(path.stem for path in found.iterdir()) == IMAGES
    # Truth and prediction side by side.
    assert mmcv.imread(str(found / f'{IMAGES[0]}.png')).shape == (64, 128, 3)


@pytest.mark.parametrize('hook', HOOKS)
def test_segmentations_land_in_the_folder(
    tool: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    found = shown(tool, tmp_path, monkeypatch, segmentor(data), HOOKS[hook]['seg'])
    pictures = sorted((found / 'vis_data/vis_image').iterdir())
    # The number behind is MMSegmentation's iteration, and in its fork the image's.
    assert [re.sub(r'_\d+\.png$', '', path.name) for path in pictures] == [f'test_{name}.png' for name in IMAGES]
    assert mmcv.imread(str(pictures[0])).shape == (64, 128, 3)


def test_other_backends_of_a_segmentor_stay(tool: ModuleType, tmp_path: Path) -> None:
    board = dict(type='TensorboardVisBackend')
    cfg = Config(dict(default_scope='mmseg', visualizer=dict(type='SegLocalVisualizer', vis_backends=[board])))
    tool.draw_into(cfg, str(tmp_path))
    assert cfg.visualizer.vis_backends == [board, dict(type='LocalVisBackend')]
    tool.draw_into(cfg, str(tmp_path))
    assert cfg.visualizer.vis_backends == [board, dict(type='LocalVisBackend')]


def test_other_hooks_stay(tool: ModuleType, tmp_path: Path) -> None:
    logger = dict(type='LoggerHook', interval=7)
    cfg = Config(dict(default_scope='mmdet', default_hooks=dict(logger=logger)))
    tool.draw_into(cfg, str(tmp_path))
    assert cfg.default_hooks.logger == logger


def test_config_that_tells_nothing_ends_in_a_sentence(tool: ModuleType) -> None:
    with pytest.raises(
        DistillError, match=r'--show-dir needs a hook .* set default_hooks\.visualization and visualizer'
    ):
        tool.draw_into(Config(dict(model=dict())), 'shown')
