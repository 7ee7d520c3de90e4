"""Optimizer and schedule of a discriminator: what cannot be built is refused before anything is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.tiny import build
from _helpers.tiny_seg import block, run_config
from mmengine.optim import PolyLR
from mmengine.registry import OPTIMIZERS

from mmkd_plugin.block import DistillBlock
from mmkd_plugin.errors import DistillError

SGD = dict(type='SGD', lr=1e-3)
WHERE = r'"distill\.methods\.seg\.'


def holistic(**keys: Any) -> dict:
    """A block with a discriminator."""
    return block(dict(type='Holistic', widths=[8, 8], **copy.deepcopy(keys)))


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(optimizer=dict(type='SDG', lr=0.1)), r'optimizer\.type" is .SDG., which is no optimizer: .*"SGD"'),
        (
            dict(optimizer=dict(lr=0.1)),
            r'optimizer" is .* it must be a dict with a "type", for instance dict\(type=.SGD',
        ),
        (dict(optimizer=dict(type='SGD', learning_rate=1)), r'optimizer\.learning_rate" is no argument of SGD: .*"lr"'),
        (dict(optimizer=dict(type='SGD', lr='0.1')), r"""optimizer\.lr" is '0\.1'; it must be a number\."""),
        (dict(optimizer=dict(type='SGD', lr=float('nan'))), r'optimizer\.lr" is nan; it must be a finite number'),
        (dict(optim_wrapper=dict(accumulative_count=2)), r'optim_wrapper\.accumulative_count".*"accumulative_counts"'),
        (dict(optim_wrapper=dict(type='OptimWraper')), r'optim_wrapper\.type".*"OptimWrapper"'),
        (dict(param_scheduler=dict(type='PolyLr')), r'param_scheduler\.type".*"PolyLR"'),
        (
            dict(param_scheduler=dict(type='PolyLR', powr=1)),
            r'param_scheduler\.powr" .* of PolyLR: did you mean "power"',
        ),
        (dict(param_scheduler=[dict(type='PolyLR'), dict(type='LinearLR', star=1)]), r'param_scheduler\[1\]\.star"'),
        (dict(param_scheduler=['PolyLR']), r'param_scheduler\[0\]" is .PolyLR.; it must be a dict with a "type"'),
    ],
)
def test_mistakes_are_one_sentence(keys: dict, message: str) -> None:
    with pytest.raises(DistillError, match=WHERE + message) as caught:
        DistillBlock.parse(holistic(**keys))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'keys',
    [
        dict(optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.99))),
        dict(optimizer=dict(type=torch.optim.SGD, lr=1)),
        dict(optim_wrapper=dict(accumulative_counts=2, clip_grad=dict(max_norm=1, norm_type=float('inf')))),
        dict(param_scheduler=None),
        dict(
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=1, convert_to_iter_based=True),
                dict(type=PolyLR, power=1, eta_min=0, begin=1, end=9, by_epoch=False, _scope_='mmseg'),
            ]
        ),
    ],
)
def test_what_can_be_built_is_accepted(keys: dict) -> None:
    assert DistillBlock.parse(holistic(**keys)).methods


@OPTIMIZERS.register_module(force=True)
class Generous(torch.optim.SGD):
    """An optimizer that says nothing about its arguments."""

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, lr=kwargs['rate'])


def test_arguments_that_a_class_does_not_name(tmp_path: Path) -> None:
    optimizer = dict(type='Generous', rate=1e-3)
    build(run_config(tmp_path, 1, distill=holistic(optimizer=optimizer, param_scheduler=None))).train()


@pytest.mark.parametrize('kind', ['Adam', 'mmengine.Adam'])
def test_accepted_optimizer_trains(tmp_path: Path, kind: str) -> None:
    build(run_config(tmp_path, 1, distill=holistic(optimizer=dict(type=kind, lr=1e-3), param_scheduler=None))).train()


@pytest.mark.parametrize('method', ['FGD', 'FGI', 'Chen'])
def test_methods_for_detectors_refuse_a_segmentor_at_the_start(tmp_path: Path, method: str) -> None:
    message = (
        rf'"distill\.methods\.seg" is {method}, which needs the objects that a detector is trained on, but the '
        r'student, EncoderDecoder, is a segmentor; there are .*PairWise'
    )
    runner = build(run_config(tmp_path, 1, distill=block(dict(type=method))))
    with pytest.raises(DistillError, match=message):
        runner.train()
    # Nothing of the training was built yet, the data set's loader least of all.
    assert isinstance(runner._train_loop, dict)
