"""Every method of the plugin passes the checks of :class:`MethodTester`."""

from __future__ import annotations

from typing import Any

import pytest
from _helpers import tiny, tiny_seg
from _helpers.method_tester import MethodTester
from torch import Tensor

from mmkd_plugin.methods import DistillLoss, LevelMethod
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.settings import Factor, Positive


class TestFGD(MethodTester):
    method = dict(type='FGD')
    term = 'attention'
    other = dict(type='FGD')


class TestFGI(MethodTester):
    method = dict(type='FGI', base_size=8)
    renamed = dict(imitation_weight='loss_weight')
    term = 'imitation'
    other = dict(type='FGI', base_size=8)


class TestChen(MethodTester):
    method = dict(type='Chen')
    renamed = dict(
        regression='regression_form',
        margin='regression_margin',
        hint_adapt="adapt='always', 'auto' or 'never'",
    )
    changes = dict(tap=dict(tap='backbone'))
    term = 'soft'
    other = dict(type='Chen', hard_share=1, regression_weight=0)

    def student(self) -> dict[str, Any]:
        return tiny.faster_rcnn()

    def teacher(self) -> dict[str, Any]:
        return tiny.faster_rcnn(depth=34)

    def stranger(self) -> dict[str, Any]:
        return tiny.retinanet(width=24)


class TestPixelWise(MethodTester):
    method = dict(type='PixelWise')
    segments = True
    renamed = dict(pixel_weight='loss_weight')
    term = 'pixel'
    other = dict(type='PixelWise')


class TestPairWise(MethodTester):
    method = dict(type='PairWise')
    segments = True
    renamed = dict(pair_weight='loss_weight', teacher_tap='tap=dict(student=<module path>, teacher=<module path>)')
    changes = dict(tap=dict(tap='backbone.layer3'))
    term = 'pair'
    other = dict(type='PairWise')


class TestHolistic(MethodTester):
    method = dict(type='Holistic', widths=[8, 16])
    segments = True
    renamed = dict(holistic_weight='loss_weight')
    changes = dict(
        optimizer=dict(optimizer=dict(type='Adam', lr=1e-3)),
        optim_wrapper=dict(optim_wrapper=dict(clip_grad=dict(max_norm=1))),
        param_scheduler=dict(param_scheduler=None),
    )
    term = 'holistic'
    other = dict(type='Holistic', widths=[8, 16])


class TestPSPNetKD(MethodTester):
    method = dict(type='PSPNetKD')
    segments = True
    term = 'kl'
    other = dict(type='PSPNetKD', aux_target='main')

    def student(self) -> dict[str, Any]:
        return two_auxiliary_heads(16)

    def teacher(self) -> dict[str, Any]:
        return two_auxiliary_heads(24)


class TestFeature(MethodTester):
    method = dict(type='Feature', loss=dict(type='PKDLoss'))
    changes = dict(
        loss=dict(loss=dict(type='ATLoss')),
        tap=dict(tap='backbone.layer2'),
        same_classes=dict(tap='bbox_head.retina_cls'),
    )
    other = dict(type='Feature', loss=dict(type='PKDLoss'))


class Gap(DistillLoss):
    """A loss as a user adds it.

    Args:
        power: Of the gap.
        loss_weight: Factor on the term.
    """

    def __init__(self, power: Positive = 2.0, loss_weight: Factor = 1.0, **options: float) -> None:
        super().__init__()
        self.power, self.loss_weight, self.options = power, loss_weight, options

    def terms(self, student: Tensor, teacher: Tensor, image: Tensor) -> dict[str, Tensor]:
        return {'gap': self.loss_weight * (student - teacher).abs().pow(self.power).mean()}


class GapMethod(LevelMethod):
    losses = {'': Gap}


class TestMethodOfAUser(MethodTester):
    method = dict(type=GapMethod)
    term = 'gap'
    other = dict(type=GapMethod)

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch):
        monkeypatch.setitem(MODELS.module_dict, 'Gap', Gap)


def test_further_options_of_a_loss_are_its_own_business():
    assert Gap(eps=1e-3).options == dict(eps=1e-3)


def two_auxiliary_heads(width: int) -> dict[str, Any]:
    """A segmentor with a choice of auxiliary heads."""
    model = tiny_seg.pspnet(width)
    head = model['auxiliary_head']
    model['auxiliary_head'] = [head, dict(head, in_index=1, in_channels=16)]
    return model
