"""Teachers that see larger images: what the student gets, and what the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers.tiny import batch, block, faster_rcnn, retinanet, run_config
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import MODELS
from torch.nn.functional import interpolate

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.images import teacher_batch

SHRINK = [dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)]


def data(**preprocessor):
    return batch(MODELS.build(retinanet(**preprocessor)))


def test_enlarged_batch():
    given = data()
    larger, samples = teacher_batch(given['inputs'], given['data_samples'], 2)
    assert larger.shape[2:] == (128, 128)
    torch.testing.assert_close(larger, interpolate(given['inputs'], size=(128, 128), mode='bilinear'))
    assert [sample.img_shape for sample in samples] == [(96, 112), (128, 128), (96, 112)]
    assert all('gt_instances' not in sample for sample in samples)
    assert given['data_samples'][0].img_shape == (48, 56)


def test_shrunk_batch_keeps_what_was_loaded():
    loaded, shrunk = data(), data(batch_augments=SHRINK)
    assert shrunk['inputs'].shape[2:] == (32, 32)
    samples = shrunk['data_samples']
    assert [sample.img_shape for sample in samples] == [(24, 28), (32, 32), (24, 28)]
    for small, large in zip(samples, loaded['data_samples']):
        assert torch.equal(2 * small.gt_instances.bboxes, large.gt_instances.bboxes)
        assert torch.equal(small.gt_instances.labels, large.gt_instances.labels)
    larger, _ = teacher_batch(shrunk['inputs'], samples, 2)
    assert torch.equal(larger, loaded['inputs'])


def test_masks_shrink_with_the_boxes():
    given = data()
    for sample in given['data_samples']:
        masks = np.ones((len(sample.gt_instances), *sample.img_shape), np.uint8)
        sample.gt_instances.masks = BitmapMasks(masks, *sample.img_shape)
    _, samples = MODELS.build(SHRINK[0])(given['inputs'], given['data_samples'])
    assert samples[1].gt_instances.masks.masks.shape == (2, 32, 32)
    assert [sample.gt_instances.masks.height for sample in samples] == [24, 32, 24]


def test_shrinking_keeps_a_constant_image():
    shrink = MODELS.build(SHRINK[0])
    given = data()
    inputs = torch.full_like(given['inputs'], 3.0)
    assert shrink(inputs, given['data_samples'])[0].eq(3).all()


def test_another_scale_than_the_shrinking_is_refused():
    given = data(batch_augments=SHRINK)
    with pytest.raises(DistillError, match=r'needs images of \[128, 128\] pixels.*shrunk from \[64, 64\]'):
        teacher_batch(given['inputs'], given['data_samples'], 4)


@pytest.mark.parametrize('family', [retinanet, faster_rcnn])
def test_step_gives_the_teacher_the_loaded_images(family):
    student, teacher = family(), family(width=24)
    student['data_preprocessor'] = {**student['data_preprocessor'], 'batch_augments': SHRINK}
    teacher['data_preprocessor'] = {**teacher['data_preprocessor'], 'mean': [0.0, 0.0, 0.0]}
    distill = block(teacher=teacher, teacher_scale=2, methods=dict(chen=dict(type='Chen')))
    model = MODELS.build(expand_config(run_config('unused', model=student, distill=distill)).model).train()
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    losses = model(**batch(model), mode='loss')
    assert all(torch.isfinite(torch.as_tensor(value)).all() for name, value in losses.items() if 'distill' in name)
    # In the teacher's own normalisation, as if it had loaded the images itself.
    expected = batch(model.teacher.model)['inputs']
    torch.testing.assert_close(seen[0], expected)
