"""Chen et al. 2017 in the distill block: one training step against heads called by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from _helpers.tiny import batch, faster_rcnn
from _helpers.tiny_chen import OFF, Step, build, expand, two_stage
from _helpers.tiny_families import changed
from torch.nn.functional import cross_entropy, logsigmoid

from mmkd_plugin.utilities.host_syncs import HostSyncs

FASTER = faster_rcnn(width=24)


@pytest.fixture(scope='module')
def faster():
    return build(two_stage())


@pytest.fixture(scope='module')
def retina():
    return build(expand())


@pytest.fixture(scope='module', params=['faster', 'retina'])
def model(request):
    return request.getfixturevalue(request.param)


def test_terms_are_finite_and_reach_the_student_alone(model):
    model.zero_grad()
    losses = Step(model).losses
    terms = {name: value for name, value in losses.items() if name.startswith('distill.')}
    assert len(terms) in (3, 5) and all(torch.isfinite(value) and value > 0 for value in terms.values())
    sum(terms.values()).backward()
    student = model.architecture
    heads = [student.roi_head.bbox_head.fc_cls, student.rpn_head.rpn_cls] if hasattr(student, 'roi_head') else [
        student.bbox_head.retina_cls, student.bbox_head.retina_reg
    ]  # fmt: skip
    for module in (*heads, student.backbone.conv1, model.distiller.connectors['loss_chen_hint_level0'].conv):
        assert module.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.teacher.model.parameters())


def test_the_students_own_losses_are_the_stock_ones(model):
    stock = copy.deepcopy(model.architecture)
    step = Step(model)
    torch.manual_seed(1)
    losses = stock(**batch(model), mode='loss')
    for name, value in losses.items():
        share = 0.5 if name in ('loss_cls', 'loss_rpn_cls') else 1
        for ours, theirs in zip(*(item if isinstance(item, list) else [item] for item in (step.losses[name], value))):
            assert torch.equal(ours, share * theirs)


def test_the_student_is_unwatched_after_the_step(model):
    Step(model)
    for module in model.architecture.modules():
        assert not {'loss', 'loss_by_feat_single'} & set(vars(module))


def test_teacher_is_evaluated_on_the_students_rois(faster):
    """Against the teacher called by hand on RoIs that are shown to be those of the student's own loss."""
    step = Step(faster)
    (sample,) = step.records['roi_head_bbox_head_samples']
    rois, labels, logits = (sample[name] for name in ('rois', 'labels', 'logits'))
    own = cross_entropy(logits, labels, reduction='sum') / len(labels)
    torch.testing.assert_close(step.losses['loss_cls'], 0.5 * own)
    teacher = faster.teacher.model
    with torch.no_grad():
        by_hand = teacher.roi_head._bbox_forward(teacher.extract_feat(step.data['inputs']), rois)
    (prediction,) = step.records['teacher_roi_head_bbox_head_predictions']
    boxes = prediction['boxes']
    assert torch.equal(prediction['logits'], by_hand['cls_score'])
    positive = (labels < 2).nonzero()[:, 0]
    assert len(positive)
    for index in positive.tolist():
        start = 4 * int(labels[index])
        assert torch.equal(boxes[index], by_hand['bbox_pred'][index, start : start + 4])

    probability = by_hand['cls_score'].softmax(-1) * torch.tensor([1, 1, 1.5])
    soft = -(probability * logits.log_softmax(-1)).sum() / len(labels)
    torch.testing.assert_close(step.losses['distill.loss_chen_roi_cls_soft'], 0.5 * soft)
    student, target = sample['boxes'], sample['targets']
    bounded = 0.0
    for index in positive.tolist():
        own, bound = (((item[index] - target[index]) ** 2).sum() for item in (student, boxes))
        bounded += float(own.detach()) if own > bound else 0
    torch.testing.assert_close(
        step.losses['distill.loss_chen_roi_reg_bounded'], torch.tensor(0.5 * bounded / len(labels))
    )


@pytest.mark.parametrize('name', ['faster', 'retina'])
def test_teacher_is_evaluated_on_the_students_anchors(name, request):
    """Against the teacher's head called by hand, and the student's own targets for this step."""
    model = request.getfixturevalue(name)
    step = Step(model)
    path, label, own = ('rpn_head', 'rpn', 'loss_rpn_bbox') if name == 'faster' else ('bbox_head', 'dense', 'loss_bbox')
    samples, teacher = step.records[f'{path}_samples'], model.teacher.model
    with torch.no_grad():
        scores, boxes = getattr(teacher, path)(teacher.extract_feat(step.data['inputs']))
    columns = 1 if name == 'faster' else 2
    soft, bounded, l1 = 0.0, 0.0, 0.0
    factor, sampled = float(samples[0]['avg_factor']), sum(float(item['label_weights'].sum()) for item in samples)
    # Three images; an RPN counts every anchor that was sampled, and one without a positive as one more.
    count = factor if name == 'faster' else 30
    assert factor < 30 < sampled if name == 'retina' else sampled == 48 and factor == 49
    for values, score, box in zip(samples, scores, boxes):
        # Cell by cell, and within a cell anchor by anchor, as MMDetection flattens its targets.
        score, box = (
            item.reshape(len(item), -1, size, *item.shape[2:]).permute(0, 3, 4, 1, 2).reshape(-1, size)
            for item, size in ((score, columns), (box, 4))
        )
        p, x = score.sigmoid(), values['logits'].detach()
        losses = -(p * logsigmoid(x) + 1.5 * (1 - p) * logsigmoid(-x)).sum(-1)
        soft += float((losses * values['label_weights']).sum() / count)
        distance, bound = (((item - values['targets']) ** 2).sum(-1) for item in (values['boxes'].detach(), box))
        gated = torch.where(distance > bound, distance, torch.zeros_like(distance)) * values['box_weights']
        bounded += float(gated.sum() / values['avg_factor'])
        error = (values['boxes'] - values['targets']).detach().abs().sum(-1) * values['box_weights']
        l1 += float(error.sum() / values['avg_factor'])
    assert math.isclose(float(step.losses[f'distill.loss_chen_{label}_cls_soft']), 0.5 * soft, rel_tol=1e-4)
    assert math.isclose(float(step.losses[f'distill.loss_chen_{label}_reg_bounded']), 0.5 * bounded, rel_tol=1e-4)
    # The samples are those of the student's own loss.
    assert math.isclose(sum(map(float, step.losses[own])), l1, rel_tol=1e-4)


def test_weights_are_those_of_the_students_assigner(retina):
    """All anchors but the ignored ones are classified, positives alone regressed, and their number divides."""
    samples = Step(retina).records['bbox_head_samples']
    weights, boxes = (torch.cat([item[name] for item in samples]) for name in ('label_weights', 'box_weights'))
    assert 0 < boxes.sum() < 50 < weights.sum()
    factor = samples[0]['avg_factor']
    # An image without positives counts as one.
    assert boxes.sum() <= factor <= boxes.sum() + 3


@pytest.mark.parametrize('agnostic', [('student',), ('teacher',), ('student', 'teacher')])
def test_class_agnostic_regression(agnostic):
    models = dict(student=faster_rcnn(), teacher=faster_rcnn(width=24))
    for role in agnostic:
        models[role] = changed(models[role], 'roi_head.bbox_head.reg_class_agnostic', True)
    step = Step(build(expand(models['student'], models['teacher'])))
    (sample,) = step.records['roi_head_bbox_head_samples']
    boxes = step.records['teacher_roi_head_bbox_head_predictions'][0]['boxes']
    assert sample['boxes'].shape == boxes.shape == (len(sample['logits']), 4)
    assert torch.isfinite(step.losses['distill.loss_chen_roi_reg_bounded'])


def test_softmax_rpn():
    models = [changed(model, 'rpn_head.loss_cls', dict(type='CrossEntropyLoss')) for model in (faster_rcnn(), FASTER)]
    config = expand(*models, hint_weight=0)
    assert config.distiller.distill_losses.loss_chen_rpn_cls_level0.sigmoid is False
    assert torch.isfinite(Step(build(config)).losses['distill.loss_chen_rpn_cls_soft'])


def test_positives_alone_are_an_option():
    """Without the floor the soft term is larger by as much as the positives are fewer than 10 an image."""
    bounded, plain = (Step(build(expand(min_positives=least))) for least in (10, 0))
    name = 'distill.loss_chen_dense_cls_soft'
    factor = bounded.records['bbox_head_samples'][0]['avg_factor']
    assert 0 < factor < 30
    torch.testing.assert_close(plain.losses[name], bounded.losses[name] * 30 / factor)
    other = 'distill.loss_chen_dense_reg_bounded'
    assert torch.equal(plain.losses[other], bounded.losses[other])


def test_image_without_boxes(model):
    losses = Step(model, (0,)).losses
    terms = {name: value for name, value in losses.items() if name.startswith('distill.')}
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(value == 0 for name, value in terms.items() if name.endswith('bounded'))
    assert all(value > 0 for name, value in terms.items() if not name.endswith('bounded'))
    sum(terms.values()).backward()


def test_batch_without_any_roi():
    """The stock head then computes no classification loss at all."""
    model = build(two_stage())
    Step(model)
    model.architecture.roi_head.bbox_sampler.num = 0
    step = Step(model)
    assert 'loss_cls' not in step.losses
    for part in ('cls_soft', 'reg_bounded'):
        assert step.losses[f'distill.loss_chen_roi_{part}'] == 0
    sum(value for name, value in step.losses.items() if name.startswith('distill.')).backward()


def test_terms_are_single_precision_under_autocast(retina):
    with torch.autocast('cpu', torch.bfloat16):
        losses = Step(retina).losses
    terms = [value for name, value in losses.items() if name.startswith('distill.')]
    assert len(terms) == 3 and all(value.dtype == torch.float32 and torch.isfinite(value) for value in terms)


def test_plain_l2_reaches_the_step():
    losses = Step(build(expand(regression_form='l2'))).losses
    assert losses['distill.loss_chen_dense_reg_l2'] > 0


def test_hint_alone_runs_no_head_of_the_teacher():
    model = build(two_stage(**{**OFF, 'hint_weight': 0.5}))
    teacher, calls = model.teacher.model, []
    for head in (teacher.rpn_head.rpn_conv, teacher.roi_head.bbox_head):
        head.register_forward_pre_hook(lambda *args: calls.append(args))
    Step(model)
    assert not calls


def test_roi_head_is_not_run_for_the_rpn():
    model = build(two_stage(heads='dense'))
    calls = []
    model.teacher.model.roi_head.bbox_head.register_forward_pre_hook(lambda *args: calls.append(args))
    Step(model)
    assert not calls


def test_the_step_adds_no_wait_of_its_own(model):
    """The teacher's RoI extractor waits, as the stock one does; nothing else may."""
    data = batch(model)
    with model.distiller.student_recorders:
        model.architecture(data['inputs'], data['data_samples'], mode='loss')
    with HostSyncs() as expected:
        if hasattr(model.architecture, 'roi_head'):
            samples = model.distiller.student_recorders.get_recorder('roi_head_bbox_head_samples')
            rois = samples.get_record_data(0, 'rois')
            teacher = model.teacher.model
            with torch.no_grad():
                teacher.roi_head._bbox_forward(teacher.extract_feat(data['inputs']), rois)
    needed = model.distiller.teacher_records_needed()
    # The first run compares the teacher's options, and so reads their differences.
    model.teacher.run(data['inputs'], data['data_samples'], needed)
    with HostSyncs() as syncs:
        model.teacher.run(data['inputs'], data['data_samples'], needed)
        model.distiller.compute_terms()
    model.distiller.release_records()
    assert syncs.calls == expected.calls


def test_copies_keep_nothing_of_the_teacher(model):
    twin = copy.deepcopy(model)
    for recorder in twin.distiller.teacher_recorders.recorders.values():
        held = [value for value in vars(recorder).values() if isinstance(value, torch.nn.Module)]
        assert not any(list(module.parameters()) for module in held)


def test_together_with_fgd():
    """FGD and the classification part of Chen in one block."""
    only = {**OFF, 'hard_share': 0.5}
    model = build(two_stage(others=dict(fgd=dict(type='FGD')), **only))
    step = Step(model)
    names = {name for name in step.losses if name.startswith('distill.')}
    chen = {'distill.loss_chen_rpn_cls_soft', 'distill.loss_chen_roi_cls_soft'}
    assert chen < names and all('loss_fgd' in name for name in names - chen)
    alone = Step(build(two_stage(**only)))
    for name in chen:
        torch.testing.assert_close(step.losses[name], alone.losses[name])
