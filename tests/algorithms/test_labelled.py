"""The task loss of a batch with unlabelled images is that of its labelled images alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers import tiny
from _helpers.tiny_seg import IGNORED, batch, block, pspnet, run_config
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.algorithms.labelled import labelled_alone
from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.unlabelled import mark_unlabelled

HEADS = {
    'mean over all pixels': {},
    'mean over labelled pixels': dict(loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    'hard pixels': dict(sampler=dict(type='OHEMPixelSampler', thresh=0.9, min_kept=50)),
    'two losses': dict(
        loss_decode=[dict(type='CrossEntropyLoss', loss_name='loss_ce'), dict(type='DiceLoss', loss_name='loss_dice')]
    ),
    'a tuple of outputs': dict(type='EncHead', channels=16, num_codes=4, in_index=3, in_channels=[8, 16, 32, 64]),
}


def algorithm(method: dict | None = None, **head: Any) -> DistillAlgorithm:
    """A distilled segmentor without randomness, whose batch norm takes one image as it takes many."""
    student = pspnet()
    if 'in_channels' in head:
        head = dict(head, in_index=[0, 1, 2, 3])
        student['decode_head'].pop('pool_scales')
    student['decode_head'].update(head)
    cfg = run_config('unused', model=student, distill=block(method or dict(type='PairWise', tap='backbone.layer4')))
    torch.manual_seed(0)
    model = MODELS.build(expand_config(cfg).model).train()
    for module in model.student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def mixed(model: Any, indices: tuple[int, ...], unlabelled: tuple[int, ...]) -> dict:
    """A batch in which the images at some places have no labels."""
    data = batch(model, indices)
    for place in unlabelled:
        mark_unlabelled(data['data_samples'][place])
        data['data_samples'][place].gt_sem_seg.data[:] = IGNORED
    return data


def task_losses(model: DistillAlgorithm, data: dict) -> dict[str, torch.Tensor]:
    losses = model(**data, mode='loss')
    return {name: value for name, value in losses.items() if not name.startswith('distill.')}


def gradients(model: DistillAlgorithm, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total, _ = model.parse_losses(losses)
    total.backward()
    return {name: item.grad.clone() for name, item in model.student.named_parameters() if item.grad is not None}


@pytest.mark.parametrize('unlabelled', [(2, 3, 4), (0, 3)], ids=['behind', 'between'])
@pytest.mark.parametrize('head', list(HEADS))
def test_task_loss_and_its_gradient_are_those_of_the_labelled_images(head, unlabelled):
    model = algorithm(**HEADS[head])
    places = tuple(range(5))
    labelled = tuple(place for place in places if place not in unlabelled)
    together = task_losses(model, mixed(model, places, unlabelled))
    alone = task_losses(model, batch(model, labelled))
    assert list(together) == list(alone)
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-6)
    ours, theirs = gradients(model, together), gradients(model, alone)
    assert ours.keys() == theirs.keys() and ours
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-6)


def test_without_the_context_the_loss_is_diluted():
    """What the context is for: MMSegmentation divides by the pixels that are ignored as well."""
    model = algorithm()
    diluted = model.student(**mixed(model, (0, 1, 2, 3), (2, 3)), mode='loss')
    alone = model.student(**batch(model, (0, 1)), mode='loss')
    torch.testing.assert_close(diluted['decode.loss_ce'], alone['decode.loss_ce'] / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('method', [dict(type='PixelWise'), dict(type='PairWise'), dict(type='PSPNetKD')])
def test_distillation_sees_all_images(method):
    model = algorithm(method)
    shapes = []
    model.step_observers.append(lambda model, losses: shapes.extend(model.distiller.arguments('loss_seg').values()))
    marked = model(**mixed(model, (0, 1, 2), (2,)), mode='loss')
    plain = model(**batch(model, (0, 1, 2)), mode='loss')
    terms = [name for name in plain if name.startswith('distill.')]
    assert terms and all(len(item) == 3 for item in shapes)
    for name in terms:
        torch.testing.assert_close(marked[name], plain[name])


def test_batch_norm_sees_all_images():
    model = algorithm()
    norm = next(item for item in model.student.modules() if isinstance(item, nn.modules.batchnorm._BatchNorm))
    norm.train()
    inputs = []
    norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    model(**mixed(model, (0, 1, 2), (1, 2)), mode='loss')
    assert len(inputs[0]) == 3
    mean = 0.1 * inputs[0].mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-6)


def test_heads_have_their_own_method_back():
    model = algorithm()
    head = model.student.decode_head
    model(**mixed(model, (0, 1), (1,)), mode='loss')
    assert 'loss_by_feat' not in vars(head)
    head.conv_seg.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**mixed(model, (0, 1), (1,)), mode='loss')
    assert 'loss_by_feat' not in vars(head)


def test_batch_without_any_label_is_one_sentence():
    model = algorithm()
    with pytest.raises(DistillError, match='unlabelled images alone'):
        model(**mixed(model, (0, 1), (0, 1)), mode='loss')


def test_head_with_another_way_to_its_loss_is_one_sentence():
    model = algorithm()
    model.student.auxiliary_head.loss = lambda *_: {}
    with pytest.raises(DistillError, match='its "auxiliary_head" did not call loss_by_feat; choose'):
        model(**mixed(model, (0, 1), (1,)), mode='loss')


def test_model_without_such_heads_is_one_sentence():
    samples = mixed(algorithm(), (0, 1), (1,))['data_samples']
    with pytest.raises(DistillError, match='none of its heads has'), labelled_alone(nn.Linear(1, 1), samples):
        pass


def test_detector_is_refused():
    distill = tiny.block(methods=dict(cwd=dict(type='Feature', loss=dict(type='PKDLoss'))), unlabelled=dict(images='x'))
    with pytest.raises(DistillError, match='"distill.unlabelled" is for segmentors.*RetinaNet, is none'):
        expand_config(tiny.run_config('unused', distill=distill))
