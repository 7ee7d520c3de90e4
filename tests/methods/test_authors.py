"""What authors of methods may do, and what they are told where they may not."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import batch, block, retinanet, run_config
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import DistillLoss, FGDLoss, LevelMethod, Method
from mmkd_plugin.utilities.settings import Factor, PowerOf, check, settings_of


class Squares(DistillLoss):
    """A loss of one number, without terms.

    Args:
        loss_weight: Its weight.
    """

    def __init__(self, loss_weight: Factor = 1.0) -> None:
        super().__init__()
        self.weight = loss_weight

    def forward(self, student, teacher):
        return self.weight * ((student - teacher) ** 2).mean()


class Hungry(Squares):
    """A loss for which the memory does not suffice."""

    def forward(self, student, teacher):
        raise torch.cuda.OutOfMemoryError('out of memory')


def step(methods):
    """The terms of one step."""
    cfg = expand_config(run_config('unused', distill=block(methods=methods)))
    model = MODELS.build(cfg.model).train()
    losses = model(**batch(model), mode='loss')
    return {name: value for name, value in losses.items() if name.startswith('distill.')}


def test_a_loss_may_have_its_own_forward_and_no_terms():
    terms = step(dict(own=dict(type='Feature', loss=dict(type=Squares))))
    assert list(terms) == ['distill.loss_own'] and terms['distill.loss_own'] > 0


def test_settings_that_a_constructor_hands_on_are_settings():
    class Renamed(FGDLoss):
        def __init__(self, extra: float = 1.0, **kwargs) -> None:
            super().__init__(**kwargs)

    found = settings_of(Renamed)
    assert list(found)[:2] == ['extra', 'channels']
    assert found['loss_weight'].hint == settings_of(FGDLoss)['loss_weight'].hint


def test_a_level_method_wires_one_loss():
    class Two(LevelMethod):
        losses = {'': Squares, 'other': Squares}

    class Without(LevelMethod):
        pass

    for kind, count in ((Two, 2), (Without, 0)):
        with pytest.raises(DistillError, match=f'names {count} losses, but a LevelMethod wires one'):
            kind.parse({}, 'distill.methods.own')


def test_every_setting_needs_a_default():
    with pytest.raises(DistillError, match='Every setting of Wanting needs a default'):

        class Wanting(Method):
            first: int  # type: ignore[misc]


def test_widths_that_nothing_adapts_are_one_sentence():
    with pytest.raises(
        DistillError, match=r'In "loss_own_level0": the loss cannot compare .* adapt the student'
    ) as caught:
        step(dict(own=dict(type='Feature', loss=dict(type=Squares), adapt='never')))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('method', 'message'),
    [
        (dict(loss=dict(type='ChenHintLoss', norm='l3')), r'"distill.methods.own.loss.norm" is .l3.; it must be'),
        (dict(loss=dict(type='PKDLos')), r'"distill.methods.own.loss.type" .*did you mean "PKDLoss"'),
        (dict(loss=dict(type='PKDLoss', lossweight=2)), r'"distill.methods.own.loss.lossweight".*"loss_weight"'),
        (dict(loss=dict(type='PKDLoss'), adapt=dict(type='ConvConector')), r'"distill.methods.own.adapt.type"'),
        (dict(loss=dict(type='PKDLoss'), tap=dict(student='neck')), r'"distill.methods.own.tap" is'),
        (dict(loss=dict(type='no_pkg.MyLoss')), r"custom_imports=dict\(imports=\['no_pkg'\]\)"),
    ],
)
def test_a_feature_is_checked_before_anything_is_built(method, message):
    with pytest.raises(DistillError, match=message):
        DistillBlock.parse(
            dict(teacher='nowhere.py', teacher_ckpt='/nowhere/x.pth', methods=dict(own=dict(type='Feature', **method)))
        )


@pytest.mark.parametrize(
    'method', [dict(type='Feature', loss=dict(type='PKDLoss'), tap='neck'), dict(type='PairWise', tap='neck')]
)
def test_a_neck_is_no_single_tap(method):
    with pytest.raises(DistillError, match='it returns several levels; write "output" for all of them'):
        step(dict(own=dict(method, tap='neck')))


def test_memory_that_runs_out_is_no_mistake_of_the_block():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        step(dict(own=dict(type='Feature', loss=dict(type=Hungry), adapt='never')))


def test_a_package_that_fails_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / 'broken_pkg.py').write_text('import nothing_of_this_name\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DistillError, match='cannot be imported .*nothing_of_this_name'):
        DistillBlock.parse(block(methods=dict(own=dict(type='broken_pkg.MyMethod'))))


@pytest.mark.parametrize('value', [2.0**29, 0.125, 1.0])
def test_powers_of_two(value):
    assert check(value, float, 'x') in PowerOf(2)
    assert value * 3 not in PowerOf(2)


def test_both_models_may_be_of_one_width_without_adaptation():
    terms = step(dict(own=dict(type='Feature', loss=dict(type=Squares), adapt='never', tap='backbone.layer3')))
    assert torch.isfinite(terms['distill.loss_own'])
    assert retinanet()['backbone'] == retinanet(24)['backbone']
