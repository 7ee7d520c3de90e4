"""What the probe finds in heads and necks that are built in other ways than most."""

from __future__ import annotations

import copy

import pytest
import torch
from _helpers.tiny import block as det_block
from _helpers.tiny import retinanet
from _helpers.tiny_seg import batch, block, pspnet, run_config
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.boxes import BoxHead
from mmkd_plugin.probe.models import ModelPair, ModelTaps, probe
from mmkd_plugin.probe.taps import Tap

COMMON = dict(num_classes=3, norm_cfg=dict(type='BN'), align_corners=False)


def segmentor(**changes) -> dict:
    return {**pspnet(auxiliary=False), **changes}


def cascade() -> dict:
    """Coarse maps by a plain head, refined by one that needs them."""
    coarse = dict(type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1, concat_input=False, **COMMON)
    fine = dict(type='OCRHead', in_channels=64, in_index=3, channels=8, ocr_channels=8, **COMMON)
    return segmentor(type='CascadeEncoderDecoder', num_stages=2, decode_head=[coarse, fine])


def query_head(width: int = 16) -> dict:
    """Logits by a product of tokens, which no module returns."""
    return segmentor(
        decode_head=dict(
            type='SegmenterMaskTransformerHead',
            in_channels=64,
            in_index=3,
            channels=width,
            embed_dims=width,
            num_layers=1,
            num_heads=2,
            num_classes=3,
        )
    )


def losses(config: dict) -> dict:
    model = MODELS.build(config)
    model.init_weights()
    data = batch(model)
    return model(data['inputs'], data['data_samples'], mode='loss')


def test_of_heads_that_refine_each_other_the_last_counts():
    head = probe(MODELS.build(cascade()), 'student').decode_head
    assert (head.path, head.logits.source, head.logits.channels) == ('decode_head.1', 'decode_head.1.conv_seg', 3)


def test_of_several_maps_the_first_counts():
    head = dict(type='DAHead', in_channels=64, in_index=3, channels=8, pam_channels=4, **COMMON)
    taps = probe(MODELS.build(segmentor(decode_head=head)), 'student').decode_head
    assert taps.logits.source == 'decode_head.conv_seg'


def test_map_that_a_module_returns_among_others():
    class Both(nn.Conv2d):
        def forward(self, feature):
            return feature, super().forward(feature)

    model = MODELS.build(segmentor())
    model.decode_head.both = Both(16, 3, 1)
    model.decode_head.cls_seg = lambda feature: model.decode_head.both(feature)[1]
    logits = probe(model, 'student').decode_head.logits
    assert (logits.source, logits.data_idx, logits.direct) == ('decode_head.both', 1, False)


def test_map_that_a_function_makes_is_taken_from_the_head():
    taps = probe(MODELS.build(query_head()), 'student').decode_head
    assert (taps.logits.source, taps.logits.direct, taps.feature) == ('decode_head', True, None)


@pytest.mark.parametrize('model', [cascade, query_head])
def test_such_heads_are_distilled(model):
    methods = dict(pixel=dict(type='PixelWise'), pair=dict(type='PairWise'))
    cfg = run_config('unused', model=model(), distill=block({}, teacher=model(), methods=methods))
    found = losses(expand_config(cfg).model)
    for name in ('distill.loss_pixel', 'distill.loss_pair'):
        assert torch.isfinite(found[name]) and found[name].requires_grad


def test_pairs_fall_back_to_the_coarsest_level():
    methods = dict(pair=dict(type='PairWise'))
    cfg = run_config('unused', model=query_head(), distill=block({}, teacher=pspnet(), methods=methods))
    distiller = expand_config(cfg).model.distiller
    assert list(distiller.student_recorders.values()) == [dict(type='mmkd_plugin.ModuleOutput', source='backbone')]
    assert distiller.loss_forward_mappings.loss_pair.student.data_idx == 3
    assert [item.source for item in distiller.teacher_recorders.values()] == ['decode_head.bottleneck']


def test_whole_head_may_be_tapped():
    methods = dict(pair=dict(type='PairWise', tap='decode_head'))
    cfg = run_config('unused', model=pspnet(), distill=block({}, methods=methods))
    assert torch.isfinite(losses(expand_config(cfg).model)['distill.loss_pair'])


def picky(least: int) -> nn.Module:
    """A detector that refuses small images."""
    model = MODELS.build(retinanet())
    plain = model.extract_feat

    def extract_feat(image):
        if image.shape[-1] < least:
            raise RuntimeError('Kernel size too large\nfor this image')
        return plain(image)

    model.extract_feat = extract_feat
    return model


def test_larger_image_where_the_small_one_is_refused():
    usual, late = probe(MODELS.build(retinanet()), 'student'), probe(picky(500), 'student')
    assert late.output == usual.output and late.pre_norm == usual.pre_norm


def test_preprocessors_own_size_is_tried():
    model = MODELS.build(segmentor())
    plain, seen = model.extract_feat, []

    def extract_feat(image):
        seen.append(tuple(image.shape[-2:]))
        if seen[-1] != (64, 64):
            raise RuntimeError('fixed size')
        return plain(image)

    model.extract_feat = extract_feat
    assert [level.stride for level in probe(model, 'student').output] == [4, 8, 8, 8]
    assert seen == [(256, 256), (64, 64)]


def test_no_size_is_taken():
    with pytest.raises(DistillError, match=r'cannot be run on an image of 256 pixels or a larger one.*too large\)'):
        probe(picky(10**6), 'teacher')


def test_larger_image_where_the_head_needs_one():
    """A head that pools over more cells than the small image has is probed on the next size."""
    model = MODELS.build(segmentor())

    def pools(head: nn.Module, inputs: tuple) -> None:
        if inputs[0][-1].shape[-1] < 50:
            raise RuntimeError('Output size is too small')

    model.decode_head.register_forward_pre_hook(pools)
    taps = probe(model, 'student')
    assert taps.decode_head is not None
    assert taps.decode_head.logits.stride == 8
    model.decode_head.register_forward_pre_hook(lambda *_: 1 / 0)
    assert probe(model, 'student').decode_head is None
    assert probe(model, 'student').output[-1].stride == 8


def test_copies_do_not_hold_the_recorder():
    methods = dict(pixel=dict(type='PixelWise'))
    cfg = run_config('unused', model=query_head(), distill=block({}, teacher=query_head(), methods=methods))
    model = MODELS.build(expand_config(cfg).model)
    data = batch(model)
    model(data['inputs'], data['data_samples'], mode='loss')
    twin = copy.deepcopy(model.student)
    assert 'forward' not in vars(twin.decode_head) and 'forward' not in vars(model.student.decode_head)


def test_detectors_are_found_as_before():
    assert probe(MODELS.build(det_block()['teacher']), 'teacher').decode_head is None


def test_levels_of_one_stride_stay_in_the_order_of_the_trunk():
    """Of three levels of stride 8, the last alone comes from a convolution."""
    model = MODELS.build(segmentor())
    # What the block returns is then what its convolution made.
    model.backbone.layer4 = nn.Sequential(nn.Conv2d(32, 64, 1))
    taps = probe(model, 'student')
    assert [tap.source for tap in taps.pre_norm] == ['backbone', 'backbone', 'backbone', 'backbone.layer4.0']
    assert [tap.data_idx for tap in taps.pre_norm] == [0, 1, 2, None]


def detector(dense_head: BoxHead | None = None, roi_head: BoxHead | None = None) -> ModelTaps:
    return ModelTaps('Made', (), (), dense_head=dense_head, roi_head=roi_head)


def test_box_heads_are_those_that_are_asked_for():
    both = detector(
        dense_head=BoxHead('rpn_head', 'RPNHead'), roi_head=BoxHead('roi_head.bbox_head', 'StandardRoIHead')
    )
    pair = ModelPair(both, both)
    assert [found.student.path for found in pair.box_heads()] == ['rpn_head', 'roi_head.bbox_head']
    assert [found.student.path for found in pair.box_heads('roi')] == ['roi_head.bbox_head']


def test_missing_box_head_names_the_callers_remedy():
    one, none = detector(dense_head=BoxHead('bbox_head', 'RetinaHead')), detector()
    with pytest.raises(DistillError, match='has a bbox_head, which the teacher, Made, lacks; .*, or drop the term.'):
        ModelPair(one, none).box_heads(remedy='drop the term')
    with pytest.raises(DistillError, match='has no roi_head whose boxes could be compared; .*, or drop the term.'):
        ModelPair(none, one).box_heads('roi', remedy='drop the term')


def test_levels_finer_than_a_pixel_of_the_student_are_not_matched():
    fine, coarse = Tap('neck', 4, 1).seen_at(2.0), Tap('neck', 4, 16, data_idx=1).seen_at(2.0)
    assert fine.stride == 0
    student = Tap('neck', 4, 8)
    [pair] = ModelPair(detector(), detector()).match([student], [fine, coarse])
    assert (pair.student, pair.teacher) == (student, coarse)
