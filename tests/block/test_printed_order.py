"""A printed config loses the order of its keys, and trains to the same numbers all the same."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import batch, block, retinanet, run_config
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS

from mmkd_plugin.block import expand_config

PKD = dict(type='Feature', loss=dict(type='PKDLoss'), adapt='always')
TAPS = dict(
    type='Feature',
    loss=dict(type='PKDLoss'),
    adapt='always',
    tap=dict(student='backbone.layer4', teacher='neck.fpn_convs.2'),
)


@pytest.mark.parametrize(
    'methods', [dict(pkd=PKD, fgd=dict(type='FGD')), dict(zz=dict(type='FGD'), chen=dict(type='Chen'), aa=TAPS)]
)
def test_parameters_do_not_depend_on_the_order_of_the_config(tmp_path, methods):
    cfg = run_config(tmp_path, distill=block(methods=methods, teacher=retinanet(24)))
    direct = expand_config(cfg)
    printed = Config.fromstring(direct.pretty_text, '.py')
    assert list(direct.model.distiller.distill_losses) != list(printed.model.distiller.distill_losses)
    states, terms = [], []
    for config in (direct, printed):
        torch.manual_seed(3)
        model = MODELS.build(config.model).train()
        states.append(model.distiller.state_dict())
        losses = model(**batch(model), mode='loss')
        terms.append({name: float(value.detach()) for name, value in losses.items() if name.startswith('distill.')})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert terms[0] == terms[1]


def test_the_block_trains_as_the_printed_config(tmp_path):
    cfg = run_config(tmp_path, 1, distill=block(methods=dict(pkd=PKD, fgd=dict(type='FGD'))))
    runner = RUNNERS.build(cfg)
    runner.train()
    other = Config.fromstring(expand_config(cfg).pretty_text, '.py')
    other.work_dir, other.experiment_name = str(tmp_path / 'printed'), 'printed'
    again = RUNNERS.build(other)
    again.train()
    values = [item.message_hub.get_scalar('train/loss').current() for item in (runner, again)]
    assert values[0] == values[1]
