"""A recipe is trained for a step, and what does not work is said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.study.recipes.check import Checked, check_recipe
from mmkd_plugin.study.recipes.watch import LossRow

BASES = "_base_ = ['mmkd_plugin::coco_mini/{}.py']\n"
RETINA = BASES.format('fgd_retina_r34_to_r18')


def check(folder: Path, text: str) -> Checked:
    """What comes of a config."""
    config = folder / 'recipe.py'
    config.write_text(text)
    return check_recipe(str(config), folder / 'run', size=128)


def shapes(row: LossRow) -> list[tuple]:
    return [(pair.strides, pair.channels) for pair in row.pairs]


def test_levels_channels_terms_and_parameters(tmp_path: Path) -> None:
    checked = check(tmp_path, RETINA)
    assert checked.fault == ''
    (row,) = checked.losses
    assert row.name == 'fgd' and set(row.terms) == {'foreground', 'background', 'attention', 'relation'}
    assert shapes(row) == [((stride, stride), (24, 48)) for stride in (8, 16, 32)]
    assert all(share > 0 for share in row.terms.values())
    assert checked.student == 763530 and checked.teachers == (3200082,)
    assert 'Traceback' not in (tmp_path / 'run/console.log').read_text()


def test_a_schedule_is_at_its_full_weight_and_told(tmp_path: Path) -> None:
    schedule = 'distill = dict(methods=dict(fgi=dict(schedule=dict(start=400, warm_up=50))))\n'
    checked = check(tmp_path, BASES.format('fgi_retina_r34_to_r18') + schedule)
    (row,) = checked.losses
    assert checked.fault == '' and row.terms['imitation'] > 0
    assert checked.remarks == ('"fgi" has its full weight from iteration 450; it is shown with that.',)


def test_predictions_are_compared_too(tmp_path: Path) -> None:
    checked = check(tmp_path, BASES.format('chen_faster-rcnn_r34_to_r18'))
    assert checked.fault == ''
    found = {row.name: shapes(row) for row in checked.losses}
    assert found['chen_roi_cls'] == [(None, (7, 7))]
    assert found['chen_rpn_reg'] == [((stride, stride), (4, 4)) for stride in (8, 16, 32)]


def test_a_discriminator_takes_its_step(tmp_path: Path) -> None:
    checked = check(tmp_path, BASES.format('pixel_pair_holistic_pspnet_r34_to_r18'))
    assert checked.fault == ''
    assert [row.name for row in checked.losses] == ['holistic', 'pair', 'pixel']


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (
            RETINA + 'model = dict(backbone=dict(frozen_stages=4))\ndistill = dict(methods=dict(own=dict('
            "type='Feature', tap='backbone.layer3', loss=dict(type='mmrazor.PKDLoss'))))\n",
            '"loss_own_level0" sends no gradient to the student; take the feature from a module that is trained',
        ),
        (
            BASES.format('chen_retina_r34_to_r18')
            + 'distill = dict(methods=dict(chen=dict(regression_margin=-1e9, hard_share=1.0, hint_weight=0)))\n',
            '"chen_dense_reg.bounded" is 0 and sends no gradient to the student in any of 10 batches; look at',
        ),
        (
            RETINA + 'distill = dict(methods=dict(fgd=dict(foreground_weight=3e38)))\n',
            '"loss_fgd.foreground" at level 0 is infinite',
        ),
        (RETINA + "distill = dict(teacher='mmdet::retinanet/retinanet_r35.py')\n", 'does not exist; did you mean'),
        (RETINA + "distill = dict(methods=dict(fgd=dict(type='FDG')))\n", 'did you mean "FGI" or "FGD"?'),
        (RETINA + 'distill = dict(methods=dict(fgd=dict(schedule=dict(start=900))))\n', 'never begins'),
        (RETINA + 'distill = dict(methods=dict(fgd=dict(loss_weight=0)))\n', 'has weight 0; give one a weight.'),
        (RETINA + "default_scope = 'mmpose'\n", "default_scope of the config is 'mmpose', for which no images"),
        (RETINA + 'model = dict(neck=dict(in_channels=[1, 2, 3, 4]))\n', 'cannot be run on an image'),
        (BASES.format('retina_r18'), 'has no distill block, so there is nothing to check'),
        ('model = dict(\n', 'cannot be read (SyntaxError'),
    ],
)
def test_what_does_not_work_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    checked = check(tmp_path, text)
    assert sentence in checked.fault
    assert '\n' not in checked.fault


def test_fault_of_code_is_one_line_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError('by nothing\nat all')

    monkeypatch.setattr('mmkd_plugin.study.recipes.check.build_runner', broken)
    checked = check(tmp_path, RETINA)
    assert checked.fault == f'ZeroDivisionError: by nothing; Its output is in "{tmp_path}/run/console.log".'
    assert 'Traceback' in (tmp_path / 'run/console.log').read_text()
