"""``loss_weight='auto'`` and ``share`` in the block: what they come to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from _helpers.tiny import block, faster_rcnn, run_config

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError


def auto(kind: str = 'FGD', **keys: Any) -> dict[str, Any]:
    return dict(type=kind, loss_weight='auto', **keys)


def shares(**values: Any) -> dict[str, Any]:
    return {name: method.share for name, method in DistillBlock.parse(values).methods.items()}


def test_share_of_the_block_is_divided_among_those_without_their_own():
    methods = dict(a=auto(), b=auto('Chen'), c=auto(share=0.3), d=dict(type='FGD'))
    assert shares(methods=methods, share=1) == dict(a=0.5, b=0.5, c=0.3, d=None)
    assert shares(methods=methods) == dict(a=1.5, b=1.5, c=0.3, d=None)


def test_pairs_have_a_tenth_and_a_discriminator_a_fiftieth_at_most():
    methods = dict(pixel=auto('PixelWise'), pair=auto('PairWise'), holistic=auto('Holistic'))
    assert shares(methods=methods) == pytest.approx(dict(pixel=2.64, pair=0.3, holistic=0.06))
    assert shares(methods=dict(pair=auto('PairWise')), share=1) == pytest.approx(dict(pair=0.1))
    assert shares(methods=dict(pair=auto('PairWise', share=1), pixel=auto('PixelWise'))) == dict(pair=1, pixel=3)


def test_many_methods_all_have_equal_parts():
    methods = {**{f'x{index}': auto() for index in range(11)}, 'pair': auto('PairWise')}
    assert set(shares(methods=methods, share=6).values()) == {0.5}


def test_weight_of_a_teacher_multiplies_the_share():
    teachers = dict(
        one=dict(teacher='x', loss_weight=0.5), two=dict(teacher='y'), none=dict(teacher='z', loss_weight=0)
    )
    pkd = dict(loss=dict(type='PKDLoss'))
    methods = dict(a=auto(teacher='one'), b=auto('Feature', teacher='two', **pkd), c=auto(teacher='none', share=3))
    assert shares(teachers=teachers, methods=methods, share=4) == dict(a=1.0, b=2.0)


def expanded(method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    cfg = expand_config(run_config('unused', distill=block(methods=dict(x=method)), **changes))
    return cfg.model.distiller


def test_losses_keep_their_own_weight_and_the_balance_names_them():
    found = expanded(auto(share=0.3))
    names = [f'loss_x_level{level}' for level in range(3)]
    assert found.balance == dict(x=dict(share=0.3, losses=names, weight=1.0))
    assert found.distill_losses.loss_x_level0.loss_weight == 1.0
    assert 'balance' not in expanded(dict(type='FGD'))


def test_when_weights_are_held_is_passed_on():
    def held(**values):
        return expand_config(run_config('unused', distill=block(methods=dict(x=auto()), **values))).model.distiller

    assert held(settle=1).settle == 1
    assert 'settle' not in held()


def test_feature_begins_with_the_weight_of_its_loss():
    assert expanded(auto('Feature', loss=dict(type='PKDLoss')))['balance'].x.weight == 1
    inside = expanded(auto('Feature', loss=dict(type='PKDLoss', loss_weight=6)))
    assert inside.balance.x.weight == 6
    assert inside.distill_losses.loss_x_level0.loss_weight == 6


def test_all_losses_of_a_method_share_a_factor():
    cfg = run_config(
        'unused', model=faster_rcnn(), distill=block(teacher=faster_rcnn(24), methods=dict(x=auto('Chen')))
    )
    found = expand_config(cfg).model.distiller
    assert set(found.balance.x.losses) == set(found.distill_losses)


@pytest.mark.parametrize(
    ('method', 'changes', 'message'),
    [
        (
            dict(type='FGD', loss_weight='atuo'),
            {},
            r'"distill.methods.x.loss_weight" is \'atuo\'; it must be a number of at least 0 or \'auto\' '
            r'\(did you mean "auto"',
        ),
        (dict(type='FGD', share=1), {}, '"distill.methods.x.share" is for a weight that finds itself; set '),
        (auto(share=0), {}, '"distill.methods.x.share" is 0; it must be a number above 0'),
        (auto(share='much'), {}, '"distill.methods.x.share" is \'much\'; it must be a number above 0'),
        (auto(), dict(share=-1), '"distill.share" is -1; it must be a number above 0'),
        (auto(), dict(share='auto'), '"distill.share" is \'auto\'; it must be a number above 0'),
        (dict(type='FGD'), dict(share=1), '"distill.share" is for.*set distill.methods.x.loss_weight=\'auto\''),
        (dict(type='FGD'), dict(settle=1), '"distill.settle" is for weights that find themselves'),
        (auto(), dict(settle=1.5), '"distill.settle" is 1.5; it must be'),
        (auto(foreground_weight='auto'), {}, '"distill.methods.x.foreground_weight" is \'auto\'; it must be a number'),
    ],
)
def test_mistakes_are_one_sentence(method, changes, message):
    with pytest.raises(DistillError, match=message) as caught:
        DistillBlock.parse(dict(methods=dict(x=method), **changes))
    assert '\n' not in str(caught.value)


def test_weight_zero_stays_off_with_a_share_of_the_block():
    methods = dict(a=auto(), b=dict(type='FGD', loss_weight=0))
    assert shares(methods=methods, share=2) == dict(a=2.0)


def test_balance_of_no_loss_is_refused():
    from mmkd_plugin.distillers import Distiller

    with pytest.raises(DistillError, match='The balance names no loss'):
        Distiller(balance=dict(x=dict(share=1, losses=['loss_x'])))
