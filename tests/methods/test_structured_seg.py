"""Pixel-wise and pair-wise distillation in the block: what is recorded, and what is refused at expansion."""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.tiny_seg import block, pspnet, run_config
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.models import probe

CONFIGS = Path(__file__).parents[2] / 'configs'


def expanded(method: dict, **changes) -> ConfigDict:
    student = changes.pop('student', pspnet())
    return expand_config(run_config('unused', model=student, distill=block(method, **changes))).model


def sources(model: ConfigDict) -> tuple[list[str], ...]:
    distiller = model.distiller
    return tuple(
        [item.source for item in side.values()] for side in (distiller.student_recorders, distiller.teacher_recorders)
    )


def test_pixels_are_the_decode_heads_logits():
    model = expanded(dict(type='PixelWise', reduction='batch_sum'))
    assert sources(model) == (['decode_head.conv_seg'], ['decode_head.conv_seg'])
    assert model.distiller.distill_losses.loss_seg.reduction == 'batch_sum'
    assert model.teachers.teacher.same_classes


def test_pairs_are_what_the_classifier_works_on_before_dropout():
    model = expanded(dict(type='PairWise'))
    assert sources(model) == (['decode_head.bottleneck'], ['decode_head.bottleneck'])
    assert 'same_classes' not in model.teachers.teacher


def test_pairs_of_any_tap():
    model = expanded(
        dict(type='PairWise', tap=dict(student='backbone.layer4', teacher='backbone.layer3.1'), patch=[2, 4])
    )
    assert sources(model) == (['backbone.layer4'], ['backbone.layer3.1'])
    assert model.distiller.distill_losses.loss_seg.patch == (2, 4)


def test_logits_are_found_by_running_not_by_name():
    student = pspnet()
    model = MODELS.build(student)
    model.decode_head.classifier, model.decode_head.conv_seg = model.decode_head.conv_seg, None
    model.decode_head.cls_seg = lambda feature: model.decode_head.classifier(feature)
    head = probe(model, 'student').decode_head
    assert (head.logits.source, head.logits.channels, head.logits.stride) == ('decode_head.classifier', 3, 8)


def test_levels_of_a_segmentor_are_its_backbones():
    taps = probe(MODELS.build(pspnet()), 'student')
    assert [(level.stride, level.channels) for level in taps.output] == [(4, 8), (8, 16), (8, 32), (8, 64)]


def test_students_corners_are_aligned_as_in_its_head():
    model = expanded(dict(type='PixelWise'), student=pspnet(align_corners=True))
    student = model.distiller.loss_forward_mappings.loss_seg.student
    assert student.like == 'teacher' and student.align_corners is True


@pytest.mark.parametrize(
    ('method', 'changes', 'message'),
    [
        (dict(type='PixelWise'), dict(teacher=pspnet(classes=5)), r'gives 3 classes and the teacher.*5'),
        (
            dict(type='PixelWise'),
            dict(teacher=pspnet(classes=2, out_channels=1), student=pspnet(classes=2, out_channels=1)),
            'out_channels=2',
        ),
        (dict(type='PairWise', tap='backbone.layer5'), {}, r'"backbone.layer5" is no module.*"backbone.layer'),
        (dict(type='PairWise', tap='backbone'), {}, r'returns a feature map'),
        (
            dict(type='PairWise', patch=0),
            {},
            r'patch" is 0; it must be a whole number of at least 1 or a list of 2 items',
        ),
        (dict(type='PixelWise', divergence='l2'), {}, "'cross_entropy' or 'kl'"),
    ],
)
def test_mistakes_are_one_sentence(method, changes, message):
    with pytest.raises(DistillError, match=message) as caught:
        expanded(method, **changes)
    assert '\n' not in str(caught.value)


def test_detectors_have_no_pixels():
    from _helpers.tiny import retinanet

    with pytest.raises(DistillError, match='has no decode_head'):
        expanded(dict(type='PixelWise'), teacher=retinanet())


@pytest.mark.parametrize('kind', ['PixelWise', 'PairWise'])
def test_weight_zero_is_off(kind):
    assert not DistillBlock.parse(block(dict(type=kind, loss_weight=0))).methods


def test_recipes_hold_the_authors_weights():
    cfg = Config.fromfile(CONFIGS / '_base_' / 'structured_seg' / 'pixel_pair_holistic.py')
    methods = DistillBlock.parse(cfg.distill).methods
    assert set(methods) == {'pixel', 'pair', 'holistic'}
    holistic = methods['holistic']
    weights = (methods['pixel'].loss_weight, methods['pair'].loss_weight, holistic.loss_weight)
    assert weights == (10, 0.5, 0.1)
    assert (holistic.discriminator_weight, holistic.penalty_weight, holistic.conditional) == (0.1, 10, True)
    assert (holistic.optimizer['lr'], holistic.optimizer['weight_decay']) == (4e-4, 5e-4)


def test_the_authors_full_recipe():
    cfg = Config.fromfile(CONFIGS / 'structured_seg' / 'pspnet_r101_to_r18_cityscapes-512x512_40k.py')
    assert cfg.train_dataloader.batch_size == 8 and cfg.train_cfg.max_iters == 40000
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert [scheduler.end for scheduler in cfg.param_scheduler] == [40000]
    methods = DistillBlock.parse(cfg.distill).methods
    assert methods['pixel'].reduction == 'batch_sum' and methods['holistic'].conditional is False
