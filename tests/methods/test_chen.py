"""Chen et al. 2017 in the distill block: its expansion, what it refuses, and one training step."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from _helpers.host_sync import HostSyncs
from _helpers.tiny import batch, block, faster_rcnn, retinanet, run_config
from mmengine.registry import MODELS
from torch.nn.functional import cross_entropy, interpolate, logsigmoid

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders import AnchorSamplesRecorder, RoISamplesRecorder

ANCHOR, ROI = AnchorSamplesRecorder.fields, RoISamplesRecorder.fields
OFF = dict(mu=1.0, regression_weight=0, hint_weight=0)


def expand(student=None, teacher=None, others=None, block_keys=None, **keys):
    """The expanded model config of Chen, alone or with other methods."""
    student, teacher = student or retinanet(), teacher or retinanet(width=24)
    methods = dict(chen=dict(type='Chen', **keys), **(others or {}))
    distill = block(teacher=teacher, methods=methods, **(block_keys or {}))
    return expand_config(run_config('unused', model=student, distill=distill)).model


def two_stage(**keys):
    return expand(faster_rcnn(), faster_rcnn(width=24), **keys)


def build(config):
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    model.init_weights()
    return model


def changed(model: dict, path: str, value) -> dict:
    """A model config with one key changed."""
    model = copy.deepcopy(model)
    *parents, last = path.split('.')
    node = model
    for key in parents:
        node = node[key]
    node[last] = value
    return model


class Step:
    """One training step and what it recorded."""

    def __init__(self, model, indices=(0, 1, 2)) -> None:
        self.data = batch(model, indices)
        self.records: dict[str, list] = {}
        model.step_observers.append(self._observe)
        torch.manual_seed(1)
        self.losses = model(**self.data, mode='loss')
        model.step_observers.remove(self._observe)

    def _observe(self, model, losses) -> None:
        distiller = model.distiller
        for name, recorder in {
            **distiller.student_recorders.recorders,
            **distiller.teacher_recorders.recorders,
        }.items():
            if name.endswith('_samples'):
                self.records[name] = [
                    [recorder.get_record_data(index, field) for field in range(len(recorder.fields))]
                    for index in range(len(recorder.data_buffer))
                ]
            elif name.endswith('_predictions'):
                self.records[name] = [
                    [recorder.get_record_data(index, field) for field in (0, 1)]
                    for index in range(len(recorder.data_buffer))
                ]


@pytest.fixture(scope='module')
def faster():
    return build(two_stage())


@pytest.fixture(scope='module')
def retina():
    return build(expand())


@pytest.fixture(scope='module', params=['faster', 'retina'])
def model(request):
    return request.getfixturevalue(request.param)


# Expansion


def test_both_heads_of_two_stages_and_the_one_of_one_stage():
    names = {name.partition('_level')[0] for name in two_stage().distiller.distill_losses}
    parts = ('rpn_cls', 'rpn_reg', 'roi_cls', 'roi_reg', 'hint')
    assert names == {f'loss_chen_{part}' for part in parts}
    names = {name.partition('_level')[0] for name in expand().distiller.distill_losses}
    assert names == {'loss_chen_dense_cls', 'loss_chen_dense_reg', 'loss_chen_hint'}


def test_hard_losses_have_the_share_mu():
    assert two_stage(mu=0.3).student_loss_weights == {'loss_rpn_cls': 0.3, 'loss_cls': 0.3}
    config = expand(mu=0.3)
    assert config.student_loss_weights == {'loss_cls': 0.3}
    assert config.distiller.distill_losses.loss_chen_dense_cls_level0.soft_weight == 0.7


@pytest.mark.parametrize('part', [('mu', 'cls'), ('regression_weight', 'reg'), ('hint_weight', 'hint')])
def test_each_part_alone(part):
    key, name = part
    config = two_stage(**{**OFF, key: 0.5})
    losses = config.distiller.distill_losses
    assert losses and all(f'_{name}' in loss for loss in losses)
    assert ('student_loss_weights' in config) is (key == 'mu')
    recorders = set(config.distiller.student_recorders) | set(config.distiller.teacher_recorders)
    if key == 'hint_weight':
        assert recorders == {'neck'} and not config.get('same_classes')
    else:
        assert 'neck' not in recorders and config.same_classes


def test_the_papers_ablation_is_configuration():
    """CLS, CLS-W, L2, L2-B, hint and hint with adaptation."""
    same = retinanet(depth=34)

    def only(**keys):
        return expand(teacher=same, **{**OFF, **keys}).distiller

    assert only(mu=0.5, background_weight=1).distill_losses.loss_chen_dense_cls_level0.background_weight == 1
    assert only(mu=0.5).distill_losses.loss_chen_dense_cls_level0.background_weight == 1.5
    assert only(regression_weight=0.5, regression='l2').distill_losses.loss_chen_dense_reg_level0.form == 'l2'
    assert only(regression_weight=0.5).distill_losses.loss_chen_dense_reg_level0.form == 'bounded'
    assert not only(hint_weight=0.5, hint_adapt=False).connectors
    connectors = only(hint_weight=0.5).connectors
    assert [(item.in_channels, item.out_channels) for item in connectors.values()] == [(16, 16)] * 3


@pytest.mark.parametrize('keys', [OFF, dict(weight=0)])
def test_everything_off_is_off(keys):
    assert not DistillBlock.parse(block(methods=dict(chen=dict(type='Chen', **keys)))).methods


def test_one_head_of_two():
    names = two_stage(heads='dense', hint_weight=0).distiller.distill_losses
    assert names and all('_rpn_' in name for name in names)
    config = two_stage(heads='roi', hint_weight=0)
    assert set(config.distiller.distill_losses) == {'loss_chen_roi_cls', 'loss_chen_roi_reg'}
    assert config.student_loss_weights == {'loss_cls': 0.5}


def test_levels_that_the_teacher_lacks_are_left_out():
    teacher = retinanet(width=24)
    teacher['neck']['num_outs'] = 2
    teacher['neck']['end_level'] = 2
    teacher['neck']['in_channels'] = [8, 16, 32]
    teacher['backbone']['out_indices'] = (0, 1, 2)
    teacher['bbox_head']['anchor_generator']['strides'] = [8, 16]
    config = expand(teacher=teacher)
    mapping = config.distiller.loss_forward_mappings
    assert [name for name in mapping if '_cls' in name] == [f'loss_chen_dense_cls_level{index}' for index in (0, 1)]
    losses = Step(build(config)).losses
    assert losses['distill.loss_chen_dense_cls_soft'] > 0


def test_levels_are_matched_by_stride_and_not_by_position():
    teacher = faster_rcnn(width=24)
    teacher['neck'].update(start_level=1, num_outs=3)
    teacher['rpn_head']['anchor_generator']['strides'] = [8, 16, 32]
    teacher['roi_head']['bbox_roi_extractor']['featmap_strides'] = [8, 16, 32]
    config = expand(faster_rcnn(), teacher, hint_weight=0)
    mapping = config.distiller.loss_forward_mappings
    entries = [mapping[f'loss_chen_rpn_cls_level{index}'] for index in range(3)]
    assert [(item.student.record_idx, item.teacher.record_idx) for item in entries] == [(1, 0), (2, 1), (3, 2)]
    losses = Step(build(config)).losses
    assert torch.isfinite(losses['distill.loss_chen_roi_cls_soft'])


# Refusals


def cascade(width=16) -> dict:
    model = faster_rcnn(width)
    box_head = dict(model['roi_head']['bbox_head'])
    model['type'] = 'CascadeRCNN'
    model['roi_head'] = dict(
        type='CascadeRoIHead',
        num_stages=2,
        stage_loss_weights=[1, 0.5],
        bbox_roi_extractor=model['roi_head']['bbox_roi_extractor'],
        bbox_head=[{**box_head, 'reg_class_agnostic': True} for _ in range(2)],
    )
    model['train_cfg']['rcnn'] = [model['train_cfg']['rcnn']] * 2
    return model


def atss() -> dict:
    model = retinanet()
    model['type'] = 'ATSS'
    model['bbox_head'].update(type='ATSSHead', norm_cfg=dict(type='GN', num_groups=4), reg_decoded_bbox=True)
    model['bbox_head']['loss_bbox'] = dict(type='GIoULoss')
    model['train_cfg']['assigner'] = dict(type='ATSSAssigner', topk=9)
    return model


def fcos() -> dict:
    model = retinanet()
    model.update(type='FCOS', train_cfg=None)
    norm = dict(type='GN', num_groups=4)
    model['bbox_head'] = dict(
        type='FCOSHead', num_classes=2, in_channels=16, stacked_convs=1, feat_channels=16, strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)), norm_cfg=norm,
    )  # fmt: skip
    return model


RETINA, FASTER = retinanet(width=24), faster_rcnn(width=24)
CODER = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ('student', 'teacher', 'message'),
    [
        (retinanet(), changed(RETINA, 'bbox_head.num_classes', 3), r'2 sigmoid columns and the teacher.s by 3 sigmoid'),
        (
            faster_rcnn(),
            changed(FASTER, 'roi_head.bbox_head.num_classes', 3),
            r'3 softmax columns and the teacher.s by 4 softmax',
        ),
        (
            faster_rcnn(),
            changed(FASTER, 'rpn_head.loss_cls', dict(type='CrossEntropyLoss')),
            r'rpn_head classifies by 1 sigmoid columns and the teacher.s by 2 softmax',
        ),
        (
            retinanet(),
            changed(RETINA, 'bbox_head.anchor_generator.ratios', [0.5, 1.0]),
            r'At stride 8 .* other anchors \(1 a cell, 16x16\) than that of the teacher \(2 a cell',
        ),
        (
            retinanet(),
            changed(RETINA, 'bbox_head.anchor_generator.octave_base_scale', 3),
            r'At stride 8 .* \(1 a cell, 16x16\) than that of the teacher \(1 a cell, 24x24\)',
        ),
        (retinanet(), changed(RETINA, 'bbox_head.bbox_coder', CODER), r'stds=\(0.1, 0.1, 0.2, 0.2\)\); .*=0'),
        (
            changed(retinanet(), 'bbox_head.reg_decoded_bbox', True),
            RETINA,
            r'decoded boxes \(reg_decoded_bbox=True\).*distill.methods.chen.regression_weight=0',
        ),
        (retinanet(), FASTER, r"student's bbox_head cannot be compared with the teacher's rpn_head"),
        (faster_rcnn(), RETINA, r'FasterRCNN, has a roi_head.bbox_head, which the teacher, RetinaNet, lacks'),
        (
            cascade(),
            FASTER,
            r"student's roi_head.bbox_head is a CascadeRoIHead.*set distill.methods.chen.heads='dense'",
        ),
        (faster_rcnn(), cascade(24), r"teacher's roi_head.bbox_head is a CascadeRoIHead.*heads='dense'"),
        (atss(), RETINA, r"student's bbox_head is a ATSSHead.*mu=1 and distill.methods.chen.regression_weight=0"),
        (retinanet(), fcos(), r"teacher's bbox_head is a FCOSHead"),
    ],
)
def test_heads_that_cannot_be_compared_are_refused(student, teacher, message):
    with pytest.raises(DistillError, match=message) as caught:
        expand(student, teacher)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('pair', [(cascade(), FASTER), (faster_rcnn(), cascade(24))])
def test_the_remedy_for_cascades_works(pair):
    losses = Step(build(expand(*pair, heads='dense'))).losses
    assert torch.isfinite(losses['distill.loss_chen_rpn_cls_soft'])


@pytest.mark.parametrize('student', [atss(), fcos()])
def test_the_hint_needs_no_head(student):
    losses = Step(build(expand(student, **{**OFF, 'hint_weight': 0.5}))).losses
    assert losses['distill.loss_chen_hint'] > 0


def test_student_without_the_chosen_head_is_refused():
    with pytest.raises(DistillError, match=r'RetinaNet, has no roi_head'):
        expand(heads='roi')


def test_widths_that_differ_need_the_adaptation():
    with pytest.raises(DistillError, match=r'16 channels and the teacher 24.*hint_adapt=True'):
        expand(hint_adapt=False)


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(mu=1.5), 'between 0 and 1'),
        (dict(regression_weight=-1), 'not be negative'),
        (dict(temperature=0), 'above'),
    ],
)
def test_numbers_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(DistillError, match=message):
        expand(**keys)


def test_two_shares_of_one_loss_are_refused():
    with pytest.raises(DistillError, match=r'"loss_cls".*mu'):
        expand(others=dict(again=dict(type='Chen', **{**OFF, 'mu': 0.5})))


# One step


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
    rois, labels, logits = (sample[ROI.index(name)] for name in ('rois', 'labels', 'logits'))
    own = cross_entropy(logits, labels, reduction='sum') / len(labels)
    torch.testing.assert_close(step.losses['loss_cls'], 0.5 * own)
    teacher = faster.teacher.model
    with torch.no_grad():
        by_hand = teacher.roi_head._bbox_forward(teacher.extract_feat(step.data['inputs']), rois)
    ((scores, boxes),) = step.records['roi_head_bbox_head_predictions']
    assert torch.equal(scores, by_hand['cls_score'])
    positive = (labels < 2).nonzero()[:, 0]
    assert len(positive)
    for index in positive.tolist():
        start = 4 * int(labels[index])
        assert torch.equal(boxes[index], by_hand['bbox_pred'][index, start : start + 4])

    probability = by_hand['cls_score'].softmax(-1) * torch.tensor([1, 1, 1.5])
    soft = -(probability * logits.log_softmax(-1)).sum() / len(labels)
    torch.testing.assert_close(step.losses['distill.loss_chen_roi_cls_soft'], 0.5 * soft)
    student, target = sample[ROI.index('boxes')], sample[ROI.index('targets')]
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
    for sample, score, box in zip(samples, scores, boxes):
        values = dict(zip(ANCHOR, sample))
        # Cell by cell, and within a cell anchor by anchor, as MMDetection flattens its targets.
        score, box = (
            item.reshape(len(item), -1, size, *item.shape[2:]).permute(0, 3, 4, 1, 2).reshape(-1, size)
            for item, size in ((score, columns), (box, 4))
        )
        p, x = score.sigmoid(), values['logits'].detach()
        losses = -(p * logsigmoid(x) + 1.5 * (1 - p) * logsigmoid(-x)).sum(-1)
        soft += float((losses * values['label_weights']).sum() / values['avg_factor'])
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
    weights, boxes = (torch.cat([item[ANCHOR.index(name)] for item in samples]) for name in ANCHOR[2:5:2])
    assert 0 < boxes.sum() < 50 < weights.sum()
    factor = samples[0][ANCHOR.index('avg_factor')]
    # An image without positives counts as one.
    assert boxes.sum() <= factor <= boxes.sum() + 3


@pytest.mark.parametrize('agnostic', [('student',), ('teacher',), ('student', 'teacher')])
def test_class_agnostic_regression(agnostic):
    models = dict(student=faster_rcnn(), teacher=faster_rcnn(width=24))
    for role in agnostic:
        models[role] = changed(models[role], 'roi_head.bbox_head.reg_class_agnostic', True)
    step = Step(build(expand(models['student'], models['teacher'])))
    (sample,), ((_, boxes),) = (step.records[f'roi_head_bbox_head_{name}'] for name in ('samples', 'predictions'))
    assert sample[ROI.index('boxes')].shape == boxes.shape == (len(sample[0]), 4)
    assert torch.isfinite(step.losses['distill.loss_chen_roi_reg_bounded'])


def test_softmax_rpn():
    models = [changed(model, 'rpn_head.loss_cls', dict(type='CrossEntropyLoss')) for model in (faster_rcnn(), FASTER)]
    config = expand(*models, hint_weight=0)
    assert config.distiller.distill_losses.loss_chen_rpn_cls_level0.sigmoid is False
    assert torch.isfinite(Step(build(config)).losses['distill.loss_chen_rpn_cls_soft'])


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
    losses = Step(build(expand(regression='l2'))).losses
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
            rois = samples.get_record_data(0, ROI.index('rois'))
            teacher = model.teacher.model
            with torch.no_grad():
                teacher.roi_head._bbox_forward(teacher.extract_feat(data['inputs']), rois)
    with HostSyncs() as syncs:
        model.teacher.run(data['inputs'], data['data_samples'], model.distiller.teacher_records_needed())
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
    only = {**OFF, 'mu': 0.5}
    model = build(two_stage(others=dict(fgd=dict(type='FGD')), **only))
    step = Step(model)
    names = {name for name in step.losses if name.startswith('distill.')}
    chen = {'distill.loss_chen_rpn_cls_soft', 'distill.loss_chen_roi_cls_soft'}
    assert chen < names and all('loss_fgd' in name for name in names - chen)
    alone = Step(build(two_stage(**only)))
    for name in chen:
        torch.testing.assert_close(step.losses[name], alone.losses[name])


# A teacher that sees larger images


@pytest.mark.parametrize('scale', [3, 1.5, 0, -2])
def test_other_scales_are_refused(scale):
    with pytest.raises(DistillError, match=r'"distill.teacher_scale" is .*power of 2'):
        DistillBlock.parse(block(teacher_scale=scale))


@pytest.mark.parametrize('family', [retinanet, faster_rcnn])
def test_larger_images_match_levels_by_what_a_cell_covers(family):
    config = expand(family(), family(width=24), block_keys=dict(teacher_scale=2))
    assert config.teacher_scale == 2
    mapping = config.distiller.loss_forward_mappings
    name = 'rpn' if family is faster_rcnn else 'dense'
    levels = 4 if family is faster_rcnn else 2
    entries = [value for key, value in mapping.items() if f'_{name}_cls' in key]
    assert [(item.student.record_idx, item.teacher.record_idx) for item in entries] == [
        (index, index + 1) for index in range(levels)
    ]
    hints = [value for key, value in mapping.items() if '_hint' in key]
    assert [(item.student.data_idx, item.teacher.data_idx) for item in hints] == [
        (index, index + 1) for index in range(levels)
    ]


def test_larger_images_by_hand():
    """The teacher called by hand on the enlarged batch and the RoIs in its pixels."""
    model = build(expand(faster_rcnn(), FASTER, block_keys=dict(teacher_scale=2)))
    step = Step(model)
    teacher, inputs = model.teacher.model, step.data['inputs']
    larger = interpolate(inputs, size=[2 * side for side in inputs.shape[2:]], mode='bilinear')
    (sample,) = step.records['roi_head_bbox_head_samples']
    rois = sample[ROI.index('rois')].clone()
    rois[:, 1:] *= 2
    with torch.no_grad():
        features = teacher.extract_feat(larger)
        scores = teacher.roi_head._bbox_forward(features, rois)['cls_score']
        logits = teacher.rpn_head(features)[0]
    torch.testing.assert_close(step.records['roi_head_bbox_head_predictions'][0][0], scores)
    for level in range(4):
        theirs = step.records['rpn_head_predictions'][level + 1][0]
        ours = step.records['rpn_head_samples'][level][0]
        assert ours.shape == theirs.shape
        torch.testing.assert_close(theirs[:, 0], logits[level + 1].permute(0, 2, 3, 1).flatten())
    hint = sum(
        ((model.distiller.connectors[f'loss_chen_hint_level{i}'](own) - features[i + 1]) ** 2).mean()
        for i, own in enumerate(model.architecture.extract_feat(inputs)[:4])
    )
    torch.testing.assert_close(step.losses['distill.loss_chen_hint'], 0.5 * hint)


@pytest.mark.parametrize('method', [dict(type='FGD'), dict(type='FGI', base_size=8)])
def test_larger_images_for_feature_methods(method):
    distill = block(teacher=FASTER, teacher_scale=2, methods=dict(other=method))
    model = build(expand_config(run_config('unused', model=faster_rcnn(), distill=distill)).model)
    terms = {name: value for name, value in Step(model).losses.items() if name.startswith('distill.')}
    assert terms and all(torch.isfinite(value) and value > 0 for value in terms.values())


def test_smaller_images():
    losses = Step(build(expand(block_keys=dict(teacher_scale=0.5)))).losses
    assert losses['distill.loss_chen_dense_cls_soft'] > 0


def test_anchors_that_no_scaled_level_has_are_refused():
    with pytest.raises(DistillError, match=r'no anchors of the same stride .* 8, 16, 32 and 1, 2, 4 pixels'):
        expand(hint_weight=0, block_keys=dict(teacher_scale=8))
