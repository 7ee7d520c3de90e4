"""The plain backbones: shapes, frozen stages, names of their layers, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from mmcv.cnn import VGG as Layers
from mmengine.registry import MODELS

import mmkd_plugin.models  # noqa: F401
from mmkd_plugin.errors import DistillError
from mmkd_plugin.models.classic import VGG, VGGM, AlexNet

IMAGE = torch.rand(1, 3, 64, 96)


@pytest.mark.parametrize('depth', [11, 13, 16, 19])
def test_the_last_map_of_vgg_is_that_before_the_last_pooling(depth):
    torch.manual_seed(0)
    backbone = VGG(depth)
    whole = Layers(depth)
    whole.load_state_dict(backbone.state_dict())
    (feature,) = backbone(IMAGE)
    assert feature.shape == (1, 512, 4, 6)
    pooled = torch.nn.functional.max_pool2d(feature, 2)
    assert torch.equal(pooled, whole(IMAGE)[-1])


def test_stages_of_vgg_have_their_strides():
    shapes = [tuple(map_.shape[1:]) for map_ in VGG(16, out_indices=(0, 1, 2, 3, 4))(IMAGE)]
    # Each stage but the last one ends with its pooling.
    assert shapes == [(64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6), (512, 4, 6)]


@pytest.mark.parametrize(('kind', 'channels'), [(AlexNet, 256), (VGGM, 512)])
def test_the_others_have_one_map(kind, channels):
    (feature,) = kind()(torch.rand(1, 3, 224, 224))
    assert feature.shape == (1, channels, 13, 13)
    assert all(item.requires_grad for item in kind().parameters())


def test_frozen_stages_keep_their_weights():
    frozen = [name for name, item in VGG(16).named_parameters() if not item.requires_grad]
    assert {name.split('.')[1] for name in frozen} == {'0', '2', '5', '7'}
    assert all(item.requires_grad for item in VGG(16, frozen_stages=0).parameters())


@pytest.mark.parametrize(
    'options',
    [dict(depth=12), dict(depth=16, out_indices=(5,)), dict(depth=16, frozen_stages=6), dict(depth=16, out_indices=())],
)
def test_what_does_not_exist_is_refused(options):
    with pytest.raises(DistillError, match='VGG has'):
        VGG(**options)


def test_they_are_registered_and_start_from_a_file(tmp_path):
    weights = VGG(11).state_dict()
    torch.save(dict(state_dict={**weights, 'classifier.0.weight': torch.zeros(1)}), tmp_path / 'vgg11.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'vgg11.pth'))
    model = MODELS.build(dict(type='mmkd_plugin.VGG', depth=11, init_cfg=init))
    model.init_weights()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
