"""FGI in the distill block: its expansion, what it refuses, and one training step."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import batch, block, build, faster_rcnn, losses_of, retinanet, run_config
from _helpers.tiny_families import fcos
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import FGI, FGILoss
from mmkd_plugin.probe.models import ModelPair, ModelTaps
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.utilities.host_syncs import HostSyncs
from mmkd_plugin.utilities.text import without_prefix


def expand(student=None, teacher=None, **keys):
    """The expanded config of FGI alone."""
    student = student or retinanet()
    teacher = teacher or retinanet(width=24)
    methods = dict(fgi=dict(type='FGI', **keys))
    return expand_config(run_config('unused', model=student, distill=block(teacher=teacher, methods=methods)))


def taps(strides, anchors=(), nonnegative=False) -> ModelTaps:
    """A model of one-channel levels at the given strides."""
    levels = tuple(Tap('neck', 1, stride, data_idx=i, nonnegative=nonnegative) for i, stride in enumerate(strides))
    return ModelTaps('Model', levels, levels, anchor_strides=tuple(anchors))


def parts(student: ModelTaps, teacher: ModelTaps, **keys):
    return FGI.parse(keys, 'distill.methods.fgi').expand('fgi', ModelPair(student, teacher))


def test_all_levels_reach_one_loss():
    distiller = expand().model.distiller
    assert list(distiller.distill_losses) == ['loss_fgi']
    mapping = distiller.loss_forward_mappings.loss_fgi
    assert [entry.data_idx for entry in mapping.student] == [0, 1, 2]
    assert [entry.data_idx for entry in mapping.teacher] == [0, 1, 2]
    assert [entry.data_idx for entry in mapping.priors] == [0, 1, 2]


def test_equal_widths_are_adapted_too():
    connectors = expand(teacher=retinanet(depth=34)).model.distiller.connectors
    sizes = [(item.in_channels, item.out_channels, item.kernel_size) for item in connectors.values()]
    assert sizes == [(16, 16, 3)] * 3


def test_the_adaptation_may_start_as_the_authors_does():
    connectors = parts(taps([8], [8]), taps([8]), adapt_std=1e-4).connectors
    assert connectors['loss_fgi_level0']['init_cfg'] == dict(type='Normal', layer='Conv2d', std=1e-4)
    connector = MODELS.build(dict(connectors['loss_fgi_level0'], in_channels=16, out_channels=16))
    connector.init_weights()
    assert 0.5e-4 < connector.conv.weight.std() < 2e-4
    assert 'init_cfg' not in parts(taps([8], [8]), taps([8])).connectors['loss_fgi_level0']


@pytest.mark.parametrize(
    ('nonnegative', 'relu', 'expected'),
    [(True, 'auto', True), (False, 'auto', False), (True, False, False), (False, True, True)],
)
def test_relu_follows_the_teachers_map(nonnegative, relu, expected):
    teacher = taps([8], nonnegative=nonnegative)
    connectors = parts(taps([8], [8]), teacher, relu=relu).connectors
    assert connectors['loss_fgi_level0']['relu'] is expected


def test_neck_output_is_no_relu_map_but_a_backbones_is():
    bare = retinanet()
    bare['neck'] = None
    assert all(not item.relu for item in expand().model.distiller.connectors.values())
    connectors = expand(student=bare, teacher=bare, region='all').model.distiller.connectors
    assert connectors and all(item.relu for item in connectors.values())


def test_levels_are_matched_to_anchors_by_stride():
    """Outputs at 4 to 32, anchors at 32, 16 and 8 in this order: the first output carries none."""
    pieces = parts(taps([4, 8, 16, 32], [32, 16, 8]), taps([4, 8, 16, 32]))
    assert pieces.student_recorders['priors']['levels'] == [None, 2, 1, 0]
    mapping = pieces.loss_forward_mappings['loss_fgi']
    assert [entry['data_idx'] for entry in mapping['student']] == [1, 2, 3]
    assert [entry['data_idx'] for entry in mapping['priors']] == [1, 2, 3]


def test_boxes_keep_their_level_where_the_teacher_lacks_the_finest():
    pieces = parts(taps([4, 8, 16], [4, 8, 16]), taps([8, 16]))
    assert pieces.distill_losses['loss_fgi']['base_size'] == 112


@pytest.mark.parametrize('region', ['boxes', 'all'])
def test_ablations_need_no_anchors(region):
    distiller = expand(student=fcos(), region=region).model.distiller
    assert 'priors' not in distiller.student_recorders
    assert 'priors' not in distiller.loss_forward_mappings.loss_fgi


def test_heads_without_anchors_are_offered_another_region():
    with pytest.raises(
        DistillError, match=r"FCOS, has no fixed anchors .*distill.methods.fgi.region='boxes'"
    ) as caught:
        expand(student=fcos())
    assert '\n' not in str(caught.value)


def test_levels_without_anchors_are_refused():
    with pytest.raises(DistillError, match=r'anchors at the strides \[16\].*agree at \[8\]'):
        parts(taps([8, 16], [16]), taps([8]))


def test_share_beyond_one_is_refused():
    with pytest.raises(DistillError, match=r'"distill.methods.fgi.psi" is 1.5; it must be a number from 0 to 1\.'):
        expand(psi=1.5)


def test_weight_zero_switches_it_off():
    assert not DistillBlock.parse(block(methods=dict(fgi=dict(type='FGI', loss_weight=0)))).methods


@pytest.fixture(scope='module', params=['one_stage', 'two_stage'])
def model(request):
    if request.param == 'one_stage':
        return MODELS.build(expand(base_size=8).model).train()
    return MODELS.build(expand(faster_rcnn(), faster_rcnn(width=24), base_size=8).model).train()


def test_step_reaches_student_and_adaptation(model):
    model.zero_grad()
    losses = model(**batch(model), mode='loss')
    term = losses['distill.loss_fgi_imitation']
    assert torch.isfinite(term) and term > 0
    term.backward()
    assert model.architecture.backbone.conv1.weight.grad.abs().sum() > 0
    assert model.distiller.connectors['loss_fgi_level0'].conv.weight.grad.abs().sum() > 0
    head = getattr(model.architecture, 'rpn_head', None) or model.architecture.bbox_head
    assert all(parameter.grad is None for parameter in head.parameters())


def test_step_agrees_with_the_loss_called_by_hand(model):
    """Features from the models themselves and anchors from the head's own method, without any recorder."""
    data = batch(model)
    student = model.architecture
    head = student.rpn_head if hasattr(student, 'rpn_head') else student.bbox_head
    # Every run of the student updates its batch norm statistics, but not what it returns while it trains.
    term = model(**data, mode='loss')['distill.loss_fgi_imitation']
    with torch.no_grad():
        features = student.extract_feat(data['inputs'])
        targets = model.teacher.model.extract_feat(data['inputs'])
    adapted = [model.distiller.connectors[f'loss_fgi_level{i}'](item) for i, item in enumerate(features)]
    priors = head.prior_generator.grid_priors([item.shape[-2:] for item in features], device='cpu')
    boxes = [sample.gt_instances.bboxes for sample in data['data_samples']]
    truth = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True)
    valid = torch.stack([torch.arange(truth.shape[1]) < len(item) for item in boxes])
    by_hand = FGILoss(base_size=8)(adapted, targets, truth, valid, priors)
    torch.testing.assert_close(term, by_hand)


def test_step_without_boxes_is_zero_and_finite(model):
    losses = model(**batch(model, (0,)), mode='loss')
    assert losses['distill.loss_fgi_imitation'] == 0


def test_step_waits_for_nothing(model):
    data = batch(model)
    with model.distiller.student_recorders:
        model.architecture(data['inputs'], data['data_samples'], mode='loss')
    with HostSyncs() as syncs:
        model.teacher.run(data['inputs'], data['data_samples'], model.distiller.teacher_records_needed())
        terms = model.distiller.compute_terms()
    model.distiller.release_records()
    assert syncs.calls == []
    assert set(terms) == {'loss_fgi'}


def test_anchors_of_as_many_levels_are_taken_in_their_order():
    student = taps((8, 16, 32, 64, 85, 128), anchors=(8, 16, 32, 64, 100, 300))
    expanded = parts(student, student)
    assert expanded.student_recorders['priors']['levels'] == [0, 1, 2, 3, 4, 5]
    assert [entry['data_idx'] for entry in expanded.loss_forward_mappings['loss_fgi']['priors']] == [0, 1, 2, 3, 4, 5]


def test_anchors_of_fewer_levels_are_taken_by_stride():
    student = taps((4, 8, 16, 32), anchors=(8, 16, 32))
    assert parts(student, student).student_recorders['priors']['levels'] == [None, 0, 1, 2]


LOGITS = dict(type='Chen', regression_weight=0, hint_weight=0)


@pytest.mark.parametrize(
    ('methods', 'terms'),
    [
        (dict(fgi=dict(type='FGI', region='all')), {'fgi_imitation'}),
        (dict(fgi=dict(type='FGI', region='boxes')), {'fgi_imitation'}),
        (dict(fgi=dict(type='FGI')), {'fgi_imitation'}),
        (dict(fgi=None, logits=LOGITS), {'logits_dense_cls_soft'}),
        (dict(fgi=dict(type='FGI'), logits=LOGITS), {'fgi_imitation', 'logits_dense_cls_soft'}),
    ],
    ids=['whole map', 'boxes', 'imitation', 'logits', 'both'],
)
def test_ablation_of_the_paper_is_configuration_alone(tmp_path, methods, terms):
    runner = build(run_config(tmp_path, iterations=1, distill=block(methods=methods)))
    runner.train()
    names = {
        without_prefix(name, 'train/distill.loss_') for name in runner.message_hub.log_scalars if 'distill' in name
    }
    assert names == terms


def test_warm_up_of_the_authors_leaves_the_first_iterations_out(tmp_path):
    methods = dict(fgi=dict(type='FGI', schedule=dict(start=2)))
    runner = build(run_config(tmp_path, iterations=4, distill=block(methods=methods)))
    runner.train()
    assert len(losses_of(runner, 'distill.loss_fgi_imitation')) == 2
