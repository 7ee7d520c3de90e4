"""Odd input of structured distillation: a finite result, or one sentence before the first step."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import build
from _helpers.tiny_seg import batch, block, pspnet, run_config
from mmengine.registry import MODELS
from mmengine.structures import PixelData

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError

METHODS = [dict(type='PixelWise'), dict(type='PairWise'), dict(type='Holistic', widths=[8, 8])]
ALL = pytest.mark.parametrize('method', METHODS, ids=lambda method: method['type'])


def algorithm(method, **changes):
    student = changes.pop('student', pspnet())
    return MODELS.build(
        expand_config(run_config('unused', model=student, distill=block(method, **changes))).model
    ).train()


def step(model, data) -> None:
    """One step of both sides; all numbers must be finite."""
    losses = model(**data, mode='loss')
    assert any(name.startswith('distill.') for name in losses)
    total, _ = model.parse_losses(losses)
    total.backward()
    for adversary in model.adversaries.values():
        adversary.build_optimizer(None, 'discriminator')
        adversary.step(0, 0, 0)
        assert all(torch.isfinite(value) for value in adversary.terms.values())
        assert all(torch.isfinite(value).all() for value in adversary.discriminator.state_dict().values())
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(item.grad).all() for item in model.parameters() if item.grad is not None)


@pytest.mark.parametrize('method', [METHODS[0], METHODS[2]], ids=lambda method: method['type'])
def test_disagreeing_num_classes(method):
    with pytest.raises(DistillError, match=r'gives 3 classes and the teacher.*5'):
        algorithm(method, teacher=pspnet(classes=5))


@pytest.mark.parametrize('method', [METHODS[0], METHODS[2]], ids=lambda method: method['type'])
def test_different_class_sets(tmp_path, method):
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
    torch.save(dict(state_dict=MODELS.build(pspnet(24)).state_dict(), meta=meta), tmp_path / 'teacher.pth')
    cfg = run_config(tmp_path, 1, distill=block(method, teacher_ckpt=str(tmp_path / 'teacher.pth')))
    with pytest.raises(DistillError, match='"ground" against "a"'):
        build(cfg).train()


@ALL
def test_logits_of_different_sizes(method):
    student = pspnet()
    student['backbone'].update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 1))
    model = algorithm(method, student=student)
    step(model, batch(model))


@ALL
def test_all_ignored(method):
    model = algorithm(method)
    step(model, batch(model, ignored=True))


@pytest.mark.parametrize('conditional', [True, False])
@pytest.mark.parametrize('widths', [[8, 8, 8, 8], [64]])
def test_discriminator_of_a_tiny_map(conditional, widths):
    """A crop of 8 pixels leaves one cell."""
    model = algorithm(dict(type='Holistic', widths=widths, conditional=conditional))
    data = batch(model)
    data['inputs'] = data['inputs'][..., :8, :8]
    for sample in data['data_samples']:
        sample.gt_sem_seg = PixelData(data=sample.gt_sem_seg.data[..., :8, :8])
    step(model, data)


@pytest.mark.parametrize(
    ('options', 'message'),
    [(dict(patch=32), 'leaves one; choose a smaller scale'), (dict(patch=1, max_gib=1e-6), r'needs .* GiB')],
)
def test_pooling_that_does_not_fit(tmp_path, options, message):
    """Refused in the first forward pass: the optimizer has not moved."""
    runner = build(run_config(tmp_path, 1, distill=block(dict(type='PairWise', **options))))
    with pytest.raises(DistillError, match=message) as caught:
        runner.train()
    assert '\n' not in str(caught.value) and 'loss_seg' in str(caught.value)
    assert runner.iter == 0 and not runner.optim_wrapper.optimizer.state


def test_memory_of_a_large_feature_is_refused_with_its_size():
    from mmkd_plugin.methods import PairWiseLoss

    feature = torch.zeros(1, 1, 1, 1).expand(1, 8, 128, 256)
    with pytest.raises(ValueError, match=r'128 x 256 nodes and 1 images needs 4.0 GiB'):
        PairWiseLoss(patch=1)(feature, feature)
