"""Parameters and operations are counted on the stock model, which stays as it was."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope

pytest.importorskip('mmseg')

from _helpers import tiny_seg
from mmseg.structures import SegDataSample

from mmkd_plugin.study.complexity import Complexity, complexity


def segmentor(size):
    """A segmentor and one image of this size."""
    init_default_scope('mmseg')
    model = ROOT_MODELS.build(ConfigDict(tiny_seg.pspnet()))
    model.eval()
    shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size))
    item = dict(inputs=torch.zeros(3, size, size, dtype=torch.uint8), data_samples=SegDataSample(metainfo=shape))
    return model, pseudo_collate([item])


def test_operations_grow_with_the_area_and_parameters_do_not():
    small, large = (complexity(*segmentor(size)) for size in (64, 128))
    model, _ = segmentor(64)
    assert small.parameters == large.parameters == sum(value.numel() for value in model.parameters())
    assert 3.5 < large.flops / small.flops <= 4


def test_count_is_that_of_the_convolutions():
    model, batch = segmentor(64)
    counted = {}

    def count(module, inputs, output):
        counted[module] = int(output.numel()) * module.weight[0].numel()

    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    hooks = [module.register_forward_hook(count) for module in convolutions]
    found = complexity(model, batch).flops
    for hook in hooks:
        hook.remove()
    assert 0 < len(counted) < len(convolutions), 'the auxiliary head does not run at inference'
    assert 1 <= found / sum(counted.values()) < 1.1


def test_model_is_left_as_it_was():
    model, batch = segmentor(64)
    before = model.test_step(batch)[0].seg_logits.data
    complexity(model, batch)
    assert 'forward' not in vars(model)
    assert torch.equal(model.test_step(batch)[0].seg_logits.data, before)


def test_model_that_cannot_be_traced_has_no_count():
    model, batch = segmentor(64)
    model.encode_decode = model.extract_feat = None
    assert complexity(model, batch) == Complexity(sum(value.numel() for value in model.parameters()), None)
