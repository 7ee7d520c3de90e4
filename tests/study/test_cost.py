"""What models cost at use is measured side by side on the same images."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmseg')

from _helpers import tiny_seg

from mmkd_plugin.study.cost import costs
from mmkd_plugin.study.pictures.canvas import build_model


def test_models_take_turns_on_the_same_images(tmp_path, monkeypatch):
    cfg = tiny_seg.run_config(tmp_path, iterations=1, test_dataloader=dict(dataset=dict(type='TinyMaps')))
    models = {}
    seen = []
    for name, width in (('small', 8), ('large', 32)):
        models[name] = build_model(Config(dict(model=tiny_seg.pspnet(width=width), default_scope='mmseg')))

        def step(batch, name=name, plain=models[name].test_step):
            seen.append((name, batch['inputs'][0]))
            return plain(batch)

        monkeypatch.setattr(models[name], 'test_step', step)
    found = costs(models, cfg, images=3)
    assert [name for name, _ in seen] == ['small', 'large'] * 4
    small, large = ([image for name, image in seen if name == which] for which in models)
    assert all(torch.equal(one, other) for one, other in zip(small, large))
    assert torch.equal(small[0], small[1]), 'the first image is predicted once before the time counts'
    assert not torch.equal(small[1], small[2])
    assert found['small'].parameters < found['large'].parameters
    assert found['small'].flops < found['large'].flops
    assert all(cost.seconds_per_image > 0 for cost in found.values())
