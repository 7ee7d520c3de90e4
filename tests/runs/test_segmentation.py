"""Distilled segmentors: the terms by hand, off is off, plain checkpoints, batches without labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers.tiny import build, losses_of, state_of
from _helpers.tiny_seg import TinyMaps, batch, block, pspnet, run_config
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.nn.functional import cross_entropy, interpolate, smooth_l1_loss

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.block import expand_config
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.errors import DistillError

METHODS = [dict(type='PSPNetKD'), dict(type='PixelWise'), dict(type='PairWise')]


def algorithm(method: dict, **changes) -> DistillAlgorithm:
    student = changes.pop('student', pspnet())
    model = MODELS.build(expand_config(run_config('unused', model=student, distill=block(method, **changes))).model)
    for module in model.student.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model.train()


def train(cfg: Config):
    runner = build(cfg)
    runner.train()
    return runner


def equal(first: dict, second: dict) -> None:
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


def label_size(logits: torch.Tensor, align_corners: bool = False) -> torch.Tensor:
    return interpolate(logits, (64, 64), mode='bilinear', align_corners=align_corners)


@torch.no_grad()
def logits_of(model: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Main and auxiliary logits of a segmentor, its heads called on its features."""
    features = model.extract_feat(inputs)
    return model.decode_head.forward(features), model.auxiliary_head.forward(features)


@pytest.mark.parametrize('target', ['aux', 'main'])
def test_auxiliary_map_follows_the_teachers(target):
    model = algorithm(dict(type='PSPNetKD', aux_target=target), teacher=pspnet(24, align_corners=target == 'main'))
    data = batch(model)
    losses = model(**data, mode='loss')
    _, ours = logits_of(model.student, data['inputs'])
    main, auxiliary = logits_of(model.teacher.model, data['inputs'])
    theirs = label_size(main, align_corners=True) if target == 'main' else label_size(auxiliary)
    torch.testing.assert_close(losses['distill.loss_seg_aux'], smooth_l1_loss(label_size(ours), theirs))


def test_kl_is_taken_at_the_labels_size():
    model = algorithm(dict(type='PSPNetKD', hard_share=0.4, ignore=True))
    data = batch(model)
    losses = model(**data, mode='loss')
    ours, theirs = (
        label_size(logits_of(side, data['inputs'])[0]) / 1.9 for side in (model.student, model.teacher.model)
    )
    wanted = theirs.softmax(1)
    pixels = (wanted * (wanted.log() - ours.log_softmax(1))).sum(1)
    # The first 4 of 64 rows are ignored.
    torch.testing.assert_close(losses['distill.loss_seg_kl'], 0.6 * 1.9**2 * pixels[:, 4:].mean(), rtol=1e-4, atol=1e-7)


def test_alpha_scales_the_main_loss_alone():
    model = algorithm(dict(type='PSPNetKD', hard_share=0.25))
    data = batch(model)
    stock = model.student(**data, mode='loss')
    losses = model(**data, mode='loss')
    assert losses['decode.loss_ce'] == 0.25 * stock['decode.loss_ce']
    for name in ('aux.loss_ce', 'decode.acc_seg', 'aux.acc_seg'):
        assert torch.equal(losses[name], stock[name])


def test_unknown_student_loss_is_named():
    model = algorithm(dict(type='PSPNetKD'))
    model.student_loss_weights = {'decoder.loss': 0.5}
    with pytest.raises(DistillError, match=r'"decoder.loss".*"decode.loss_ce"'):
        model(**batch(model), mode='loss')


@pytest.mark.parametrize('stride', [8, 16])
def test_pixels_by_hand(stride):
    """Logits of another size are resized to the teacher's."""
    student = pspnet()
    if stride == 16:
        student['backbone'].update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 1))
    model = algorithm(dict(type='PixelWise', loss_weight=2.0), student=student)
    data = batch(model)
    losses = model(**data, mode='loss')
    ours, theirs = (logits_of(side, data['inputs'])[0] for side in (model.student, model.teacher.model))
    assert ours.shape[-1] == 64 // stride
    ours = interpolate(ours, (8, 8), mode='bilinear', align_corners=False)
    torch.testing.assert_close(losses['distill.loss_seg_pixel'], 2 * cross_entropy(ours, theirs.softmax(1)))


@pytest.mark.parametrize('method', METHODS, ids=lambda method: method['type'])
def test_gradients_reach_the_student_alone(method):
    model = algorithm(method)
    losses = model(**batch(model), mode='loss')
    terms = [value for name, value in losses.items() if name.startswith('distill.')]
    assert terms and all(torch.isfinite(value) for value in terms)
    sum(terms).backward()
    assert model.student.backbone.stem[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.teacher.model.parameters())
    reached = model.student.auxiliary_head.conv_seg.weight.grad is not None
    assert reached is (method['type'] == 'PSPNetKD')


@pytest.mark.parametrize(
    ('method', 'heads'),
    [
        (dict(type='PSPNetKD'), {'auxiliary_head', 'decode_head'}),
        (dict(type='PSPNetKD', aux_weight=0), {'decode_head'}),
        (dict(type='PairWise', tap='backbone.layer4'), set()),
    ],
)
def test_teacher_runs_the_heads_that_are_read(method, heads):
    model = algorithm(method)
    called = set()
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model.teacher.model, name)
        head.conv_seg.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    model(**batch(model), mode='loss')
    assert called == heads


@pytest.mark.parametrize('method', [*METHODS, dict(type='PSPNetKD', ignore=True, aux_divergence='kl')])
def test_batch_that_is_all_ignored_is_finite(method):
    model = algorithm(method)
    losses = model(**batch(model, ignored=True), mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    if method.get('ignore'):
        assert losses['distill.loss_seg_kl'] == losses['distill.loss_seg_aux'] == 0
    total, _ = model.parse_losses(losses)
    total.backward()
    assert all(torch.isfinite(item.grad).all() for item in model.parameters() if item.grad is not None)


def test_samples_without_labels_are_one_sentence():
    model = algorithm(dict(type='PSPNetKD'))
    data = batch(model)
    model.student.decode_head.loss = lambda *_: dict(loss_ce=model.student.decode_head.conv_seg.weight.sum())
    del data['data_samples'][0].gt_sem_seg
    model.student.auxiliary_head.loss = model.student.decode_head.loss
    with pytest.raises(DistillError, match='no gt_sem_seg; add LoadAnnotations'):
        model(**data, mode='loss')


@pytest.mark.parametrize(
    'distill', [None, block(dict(type='PSPNetKD', loss_weight=0)), block(dict(type='PixelWise', loss_weight=0))]
)
def test_off_is_off_bit_for_bit(tmp_path, distill):
    stock = train(run_config(tmp_path / 'stock', runner_type=None))
    off = train(run_config(tmp_path / 'off', distill=distill))
    assert losses_of(stock, 'loss') == losses_of(off, 'loss')
    equal(state_of(stock), state_of(off))


@pytest.mark.parametrize('method', METHODS, ids=lambda method: method['type'])
def test_checkpoint_is_a_plain_student_and_the_printed_config_is_the_block(tmp_path, method):
    cfg = run_config(tmp_path / 'block', distill=block(method))
    from_block = train(cfg)
    checkpoint = load_checkpoint_file(str(tmp_path / 'block' / 'iter_2.pth'))
    MODELS.build(pspnet()).load_state_dict(checkpoint['state_dict'], strict=True)
    expand_config(cfg).dump(tmp_path / 'expanded.py')
    printed = Config.fromfile(tmp_path / 'expanded.py')
    printed.work_dir = str(tmp_path / 'printed')
    expanded = train(printed)
    assert losses_of(from_block, 'loss') == losses_of(expanded, 'loss')
    equal(state_of(from_block), state_of(expanded))


def test_terms_have_clear_names():
    methods = dict(pixel=dict(type='PixelWise'), pair=dict(type='PairWise'), logits=dict(type='PSPNetKD'))
    model = algorithm({}, methods=methods)
    names = [name for name in model(**batch(model), mode='loss') if name.startswith('distill.')]
    assert sorted(names) == [f'distill.loss_{name}' for name in ('logits_aux', 'logits_kl', 'pair', 'pixel')]


def test_main_loss_starts_as_its_share_of_the_stock_one(tmp_path):
    stock = train(run_config(tmp_path / 'stock', iterations=1, runner_type=None))
    distilled = train(run_config(tmp_path / 'distilled', iterations=1, distill=block(dict(type='PSPNetKD'))))
    assert losses_of(distilled, 'decode.loss_ce')[0] == 0.25 * losses_of(stock, 'decode.loss_ce')[0]
    assert losses_of(distilled, 'aux.loss_ce') == losses_of(stock, 'aux.loss_ce')


@pytest.mark.parametrize('meta', [dict(dataset_meta=dict(classes=('a', 'b', 'c'))), dict(CLASSES=('a', 'b', 'c'))])
@pytest.mark.parametrize(('method', 'refused'), [(dict(type='PixelWise'), True), (dict(type='PairWise'), False)])
def test_teacher_of_other_classes(tmp_path, meta, method, refused):
    torch.save(dict(state_dict=MODELS.build(pspnet(24)).state_dict(), meta=meta), tmp_path / 'teacher.pth')
    cfg = run_config(tmp_path, 1, distill=block(method, teacher_ckpt=str(tmp_path / 'teacher.pth')))
    if refused:
        with pytest.raises(DistillError, match='"ground" against "a"'):
            train(cfg)
    else:
        train(cfg)


def test_missing_data_in_a_concatenation_is_one_sentence(tmp_path):
    missing = dict(
        type='PascalVOCDataset', data_root='data/nowhere', data_prefix=dict(img_path='JPEGImages'), ann_file=''
    )
    cfg = run_config(tmp_path, distill=block(dict(type='PixelWise')))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[dict(type=TinyMaps.__name__), missing])
    with pytest.raises(DistillError, match='image folder .*"data/nowhere/JPEGImages"'):
        train(cfg)
