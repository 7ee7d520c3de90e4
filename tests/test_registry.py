"""Names of the plugin and of the config's own package are found from the plugin's scope."""

from __future__ import annotations

import mmcv.transforms
import mmdet.datasets.transforms
import mmseg.models
from mmdet.models import ResNet
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TRANSFORMS, DefaultScope

import mmkd_plugin.registry
from mmkd_plugin.methods import FGDLoss


def found(root, name, default_scope):
    with DefaultScope.overwrite_default_scope(default_scope), root.switch_scope_and_registry('mmkd_plugin') as registry:
        assert registry.scope == 'mmkd_plugin'
        return registry.get(name)


def test_own_part_with_and_without_prefix():
    assert found(ROOT_MODELS, 'FGDLoss', 'mmdet') is FGDLoss
    assert ROOT_MODELS.get('mmkd_plugin.FGDLoss') is FGDLoss


def test_other_parts_are_those_of_the_default_scope():
    assert found(ROOT_MODELS, 'ResNet', 'mmdet') is ResNet
    assert found(ROOT_MODELS, 'ResNet', 'mmseg') is mmseg.models.ResNet
    assert found(TRANSFORMS, 'Resize', 'mmdet') is mmdet.datasets.transforms.Resize
    assert found(TRANSFORMS, 'Resize', 'mmengine') is mmcv.transforms.Resize


def test_every_registry_of_mmengine_has_a_child():
    assert all(registry._search_child('mmkd_plugin') is not None for registry in (TRANSFORMS, ROOT_MODELS))
    assert mmkd_plugin.registry.MODELS.parent is ROOT_MODELS
