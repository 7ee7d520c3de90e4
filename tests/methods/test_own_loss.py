"""A loss of the user's own in the distill block: what reaches it, and under which names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers import tiny, tiny_seg
from _helpers.tiny_families import fcos
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS as PLUGIN_MODELS


class Spy(nn.Module):
    """Keeps what it is called with; a subclass says in its ``forward`` what that is."""

    calls: list[dict[str, Any]] = []

    def see(self, student: Tensor, teacher: Tensor, **facts: Any) -> Tensor:
        self.calls.append(dict(facts, student=student, teacher=teacher))
        return (student - teacher).abs().mean()


class Boxed(Spy):
    def forward(self, student, teacher, boxes, valid, image_shapes):
        return self.see(student, teacher, boxes=boxes, valid=valid, image_shapes=image_shapes)


class Anchored(Spy):
    def forward(self, student, teacher, labels, priors, image):
        return self.see(student, teacher, labels=labels, priors=priors, image=image)


class Labelled(Spy):
    def forward(self, student, teacher, label, image):
        return self.see(student, teacher, label=label, image=image)


class Optional(Spy):
    def forward(self, student, teacher, boxes=None, labels=None, label=None, priors=None, image_shapes=None, tau=1.0):
        given = dict(boxes=boxes, labels=labels, label=label, priors=priors, image_shapes=image_shapes)
        assert tau == 1.0
        return self.see(student, teacher, **{name: fact for name, fact in given.items() if fact is not None})


class Named(Spy):
    """With a fact, and names of its own for the features."""

    def forward(self, teacher_feature, valid, feature):
        return self.see(feature, teacher_feature, valid=valid)


class StudentLast(Spy):
    """Names neither feature as the teacher's."""

    def forward(self, target, student):
        return self.see(student, target)


class TwoTaps(Spy):
    def forward(self, student_low, teacher_low, student_neck, teacher_neck, image):
        low = self.see(student_low, teacher_low)
        return low + self.see(student_neck, teacher_neck, image=image)


class Alone(Spy):
    def forward(self, student, boxes):
        return student.mean()


class Needing(Spy):
    def forward(self, student, teacher, proposals):
        return student.mean()


class Masked(Spy):
    """Names the teacher, so that its other argument is not the teacher's feature."""

    def forward(self, student, mask, teacher=None):
        return student.mean()


class Required(Spy):
    """Leaves its weight to the user."""

    def __init__(self, loss_weight):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student, teacher):
        return self.see(student, teacher)


class OneOfTwo(Spy):
    def forward(self, student_low, teacher_low, student_neck):
        return student_low.mean()


class FrequencyLoss(nn.Module):
    """As its authors would write it for MMRazor: the distance of the spectra, with names of their own."""

    def __init__(self, loss_weight: float = 1.0, low_pass: int = 4) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.low_pass = low_pass

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        assert preds_S.shape == preds_T.shape
        spectra = [torch.fft.rfft2(preds, norm='ortho')[..., : self.low_pass] for preds in (preds_S, preds_T)]
        return self.loss_weight * (spectra[0] - spectra[1].detach()).abs().pow(2).mean()


class MaskedTeacherFirst(nn.Module):
    """As those of a masking method would: the teacher first, masks of its own that are trained along."""

    def __init__(self, channels: int = 24, tokens: int = 2, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tokens, channels))
        self.loss_weight = loss_weight

    def forward(self, feat_t: Tensor, feat_s: Tensor) -> Tensor:
        assert not feat_t.requires_grad and feat_s.requires_grad
        masks = torch.einsum('kc,nchw->nkhw', self.tokens, feat_t).sigmoid().unsqueeze(2)
        return self.loss_weight * ((feat_s - feat_t).unsqueeze(1) * masks).pow(2).mean()


@pytest.fixture(autouse=True)
def forget():
    Spy.calls.clear()


def step(loss: Any, student=None, teacher=None, kit=tiny, **keys):
    """The model after one step with a loss, and the loss's term."""
    segments = kit is tiny_seg
    student = student or (tiny_seg.pspnet() if segments else tiny.retinanet())
    teacher = teacher or (tiny_seg.pspnet(24) if segments else tiny.retinanet(24))
    loss = loss if isinstance(loss, dict) else dict(type=loss)
    distill = tiny.block(teacher=teacher, methods=dict(own=dict(type='Feature', loss=loss, **keys)))
    model = MODELS.build(expand_config(kit.run_config('unused', model=student, distill=distill)).model).train()
    torch.manual_seed(0)
    term = model(**kit.batch(model), mode='loss')['distill.loss_own']
    term.backward()
    return model, term


def first_stage(backbone: Any, image: Tensor) -> Tensor:
    """What a ResNet's first stage returns."""
    return backbone.layer1(backbone.maxpool(backbone.relu(backbone.norm1(backbone.conv1(image)))))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The losses are found by a printed config."""
    losses = (Boxed, Anchored, Labelled, Optional, Named, StudentLast, TwoTaps, FrequencyLoss, MaskedTeacherFirst)
    for loss in losses:
        monkeypatch.setitem(PLUGIN_MODELS.module_dict, loss.__name__, loss)


def test_boxes_are_those_of_the_batch():
    model, _ = step(Boxed)
    samples = tiny.batch(model)['data_samples']
    assert len(Spy.calls) == 3
    for call in Spy.calls:
        for index, sample in enumerate(samples):
            count = len(sample.gt_instances)
            assert torch.equal(call['boxes'][index, :count], sample.gt_instances.bboxes)
            assert call['valid'][index].tolist() == [row < count for row in range(call['valid'].shape[1])]
            assert tuple(call['image_shapes'][index].tolist()) == sample.img_shape


def test_labels_priors_and_image_are_those_of_the_batch():
    model, _ = step(Anchored)
    batch = tiny.batch(model)
    for call, stride in zip(Spy.calls, (8, 16, 32)):
        for index, sample in enumerate(batch['data_samples']):
            found = call['labels'][index]
            assert found[found >= 0].tolist() == sample.gt_instances.labels.tolist()
        assert torch.equal(call['image'], batch['inputs'])
        cells = call['student'].shape[-2] * call['student'].shape[-1]
        # One square anchor a cell, twice as wide as the stride, the first around the corner of the image.
        assert call['priors'].reshape(-1, 4).shape == (cells, 4)
        assert call['priors'].reshape(-1, 4)[0].tolist() == [-stride, -stride, stride, stride]


def test_label_map_is_that_of_the_batch():
    model, _ = step(Labelled, kit=tiny_seg, tap='decode_head.conv_seg', adapt='never')
    batch = tiny_seg.batch(model)
    [call] = Spy.calls
    expected = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
    assert torch.equal(call['label'], expected) and torch.equal(call['image'], batch['inputs'])


@pytest.mark.parametrize(
    ('keys', 'expected'),
    [
        (dict(), {'boxes', 'labels', 'priors', 'image_shapes'}),
        (dict(student=fcos()), {'boxes', 'labels', 'image_shapes'}),
        (dict(kit=tiny_seg), {'label', 'image_shapes'}),
    ],
    ids=['anchors', 'points', 'label map'],
)
def test_optional_facts_are_those_that_the_model_has(keys, expected):
    step(Optional, **keys)
    assert all(set(call) == {'student', 'teacher', *expected} for call in Spy.calls) and Spy.calls


@pytest.mark.parametrize('loss', [Named, StudentLast])
def test_features_of_any_name(loss):
    step(loss)
    # The teacher's neck is 24 wide, and the student was adapted to it.
    assert all(call['student'].requires_grad and not call['teacher'].requires_grad for call in Spy.calls)
    assert {call['student'].shape[1] for call in Spy.calls} == {24}


def test_two_taps_reach_the_loss_by_their_names():
    model, _ = step(TwoTaps, tap=dict(low='backbone.layer1', neck='output'))
    batch = tiny.batch(model)
    with torch.no_grad():
        teacher = model.teacher.model
        low, levels = first_stage(teacher.backbone, batch['inputs']), teacher.extract_feat(batch['inputs'])
    # The one call of the backbone's stage meets every level of the neck.
    assert len(Spy.calls) == 6
    for index, level in enumerate(levels):
        torch.testing.assert_close(Spy.calls[2 * index]['teacher'], low)
        torch.testing.assert_close(Spy.calls[2 * index + 1]['teacher'], level)
        assert Spy.calls[2 * index]['student'].shape == low.shape
        assert Spy.calls[2 * index + 1]['student'].shape == level.shape
    # Widths agree in the backbone and differ in the neck.
    assert set(model.distiller.connectors) == {f'loss_own_level{index}_neck' for index in range(3)}


@pytest.mark.parametrize(
    ('loss', 'keys', 'message'),
    [
        (
            Needing,
            {},
            r'"distill.methods.own": Needing takes an argument "proposals", which a step does not know; there are '
            r'student, teacher, boxes, valid, image_shapes, labels, label, image, priors,',
        ),
        (Masked, {}, r'Masked takes an argument "mask", which a step does not know'),
        (Required, {}, r'"distill.methods.own.loss.loss_weight" is missing; Required cannot be built without it'),
        (Alone, {}, r'Alone takes no "teacher"; there are student, teacher'),
        (
            OneOfTwo,
            dict(tap=dict(low='backbone.layer1', neck='output')),
            r'takes no "teacher_neck"; there are student_low, teacher_low, student_neck, teacher_neck, boxes',
        ),
        (TwoTaps, {}, r'an argument "student_low"'),
        (
            TwoTaps,
            dict(tap=dict(low='backbone.layer9', neck='output')),
            r'The tap "backbone.layer9" is no module .*did you mean "backbone.layer\d"',
        ),
        (
            TwoTaps,
            dict(tap=dict(low=3, neck='output')),
            r'"distill.methods.own.tap.low" is 3; it must be the path of a module',
        ),
        (
            TwoTaps,
            dict(
                tap=dict(
                    low='bbox_head.cls_convs.0.conv', neck=dict(student='neck.fpn_convs', teacher='neck.fpn_convs.0')
                )
            ),
            r'The tap "neck.fpn_convs" is no module',
        ),
        (Boxed, dict(kit=tiny_seg), r'the loss takes boxes, which the data of a segmentor .* do not hold'),
        (object, {}, r'object has no forward, so it is no loss'),
        (dict(type=5), {}, r'"distill.methods.own.loss.type" is 5, which is none of the losses'),
        (dict(type='torch.nn'), {}, r"is 'torch.nn', which is none of the losses"),
        (dict(type='torch.nn.L1Los'), {}, r"is 'torch.nn.L1Los', which is none of the losses"),
        (dict(type='nowhere.Loss'), {}, r"is 'nowhere.Loss', which is none of the losses"),
    ],
)
def test_what_no_step_knows_is_refused(loss, keys, message):
    with pytest.raises(DistillError, match=message) as caught:
        step(loss, **keys)
    assert '\n' not in str(caught.value)


def test_priors_are_refused_where_the_head_has_none():
    with pytest.raises(DistillError, match=r'the loss takes priors, but the head of the student, FCOS, places no'):
        step(Anchored, student=fcos())


@pytest.mark.parametrize('loss', [FrequencyLoss, MaskedTeacherFirst])
@pytest.mark.parametrize('kit', [tiny, tiny_seg])
def test_losses_written_for_mmrazor_run_unchanged(loss, kit):
    keys = dict(tap='decode_head.bottleneck') if kit is tiny_seg else {}
    model, term = step(dict(type=loss.__name__, loss_weight=2.0), kit=kit, **keys)
    assert torch.isfinite(term) and term > 0
    assert model.architecture.backbone.layer1[0].conv1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.distiller.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.model.parameters())


def test_spectrum_by_hand():
    """The term of the one level is the authors' formula on the two features, with their weight."""
    model, term = step(dict(type=FrequencyLoss), tap='backbone.layer1', adapt='never', loss_weight=3)
    batch = tiny.batch(model)
    backbones = (model.architecture.backbone, model.teacher.model.backbone)
    features = [first_stage(backbone, batch['inputs']).detach() for backbone in backbones]
    spectra = [torch.fft.fft2(feature, norm='ortho')[..., :4] for feature in features]
    torch.testing.assert_close(term.detach(), 3 * (spectra[0] - spectra[1]).abs().square().mean())
