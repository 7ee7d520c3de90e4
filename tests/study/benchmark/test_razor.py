"""MMRazor's own algorithm gives the same loss and the same gradient, or the reason why not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny, tiny_seg
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope

from mmkd_plugin.block import expand_config
from mmkd_plugin.study.benchmark.razor import Look, NoEquivalent, equivalent, pull_of, razor_algorithm


def feature(**loss: Any) -> dict:
    return dict(type='Feature', loss=loss)


DETECTORS = {
    'CWD': feature(type='mmrazor.ChannelWiseDivergence', tau=2.0, loss_weight=3.0),
    'PKD': feature(type='mmrazor.PKDLoss'),
    'L2': feature(type='mmrazor.L2Loss'),
    **{
        f'hint {norm} {reduction}': feature(type='ChenHintLoss', norm=norm, reduction=reduction, loss_weight=0.3)
        for norm in ('l2', 'l1')
        for reduction in ('mean', 'batchmean', 'sum')
    },
}
SEGMENTORS: dict[str, dict] = {
    f'pixel {reduction}': dict(type='PixelWise', divergence='kl', temperature=2.0, reduction=reduction)
    for reduction in ('pixel_mean', 'batch_sum', 'element_mean')
}
SEGMENTORS['pixel cross-entropy'] = dict(type='PixelWise')
SEGMENTORS['CWD of logits'] = dict(
    type='Feature',
    tap='decode_head.conv_seg',
    adapt='never',
    same_classes=True,
    loss=dict(type='mmrazor.ChannelWiseDivergence'),
)


def expanded(family: Any, method: dict, folder: Path, **changes: Any) -> ConfigDict:
    distill = family.block(method) if family is tiny_seg else tiny.block(methods=dict(one=method))
    distill.update(changes)
    cfg = expand_config(family.run_config(folder, distill=distill))
    init_default_scope(cfg.default_scope)
    return cfg.model


def both(family: Any, model: ConfigDict) -> tuple[Any, Any, Look, dict]:
    """Ours, MMRazor's with the same weights, the look at our step, and the batch."""
    for options in model.teachers.values():
        options.teacher_options = dict(fuse_bn=False, channels_last=False)
    torch.manual_seed(0)
    ours = MODELS.build(copy.deepcopy(model))
    ours.train()
    data = family.batch(ours.student)
    look = Look(ours, data)
    student = MODELS.build(model.architecture)
    razor = razor_algorithm(student, model, look.shapes)
    student.load_state_dict(ours.student.state_dict())
    razor.teacher.load_state_dict(ours.teacher.model.state_dict())
    razor.distiller.load_state_dict(ours.distiller.state_dict(), strict=False)
    razor.train()
    razor.teacher.eval()
    return ours, razor, look, data


def total(algorithm: Any, data: dict) -> torch.Tensor:
    torch.manual_seed(0)
    losses = algorithm(**data, mode='loss')
    return sum(value for name, value in losses.items() if name.startswith('distill.'))


@pytest.mark.parametrize('name', DETECTORS)
def test_a_detector_has_the_same_loss_and_gradient(name: str, tmp_path: Path) -> None:
    ours, razor, look, data = both(tiny, expanded(tiny, DETECTORS[name], tmp_path))
    assert torch.allclose(total(ours, data), total(razor, data), rtol=1e-4)
    assert torch.allclose(pull_of(razor, data), look.pull, rtol=1e-3, atol=1e-4 * float(look.pull.abs().max()))
    assert look.pull.any()


@pytest.mark.parametrize('name', SEGMENTORS)
def test_a_segmentor_has_the_same_gradient(name: str, tmp_path: Path) -> None:
    ours, razor, look, data = both(tiny_seg, expanded(tiny_seg, SEGMENTORS[name], tmp_path))
    assert torch.allclose(pull_of(razor, data), look.pull, rtol=1e-3, atol=1e-4 * float(look.pull.abs().max()))
    # The entropy of the teacher is no part of a divergence.
    same = torch.allclose(total(ours, data), total(razor, data), rtol=1e-4)
    assert same == (name != 'pixel cross-entropy')


def test_it_is_made_of_parts_of_mmrazor(tmp_path: Path) -> None:
    _, razor, *_ = both(tiny_seg, expanded(tiny_seg, SEGMENTORS['pixel pixel_mean'], tmp_path))
    recorders = [*razor.distiller.student_recorders.recorders.values()]
    recorders += razor.distiller.teacher_recorders.recorders.values()
    parts = [razor, razor.distiller, *razor.distiller.distill_losses.values(), *recorders]
    assert len(parts) == 5 and all(type(part).__module__.startswith('mmrazor.') for part in parts)


def refused(model: ConfigDict, **shape: tuple) -> str:
    shapes = {name: dict(student=(2, 4, 8, 8), teacher=(2, 4, 8, 8)) for name in model.distiller.distill_losses}
    for one in shapes.values():
        one.update(shape)
    with pytest.raises(NoEquivalent) as found:
        equivalent(model, shapes)
    return str(found.value)


def test_what_mmrazor_lacks_is_named(tmp_path: Path) -> None:
    assert refused(expanded(tiny, dict(type='FGD'), tmp_path)) == 'MMRazor has no FGDLoss'
    pixel = expanded(tiny_seg, SEGMENTORS['pixel pixel_mean'], tmp_path)
    assert refused(pixel, teacher=(2, 4, 4, 4)) == 'MMRazor brings maps to no common size'
    automatic = expanded(tiny, dict(DETECTORS['PKD'], loss_weight='auto'), tmp_path)
    assert refused(automatic) == 'MMRazor finds no weights by itself'
    scaled = expanded(tiny, DETECTORS['PKD'], tmp_path, teacher_scale=2)
    assert 'images of the size of the student' in refused(scaled)
    two = copy.deepcopy(pixel)
    two.teachers.second = two.teachers.teacher if 'teacher' in two.teachers else next(iter(two.teachers.values()))
    assert refused(two) == 'MMRazor takes one teacher'


def test_another_normalisation_is_none_of_mmrazors(tmp_path: Path) -> None:
    other = dict(tiny.retinanet(width=16), data_preprocessor=tiny.retinanet(mean=[0.0, 0.0, 0.0])['data_preprocessor'])
    with pytest.raises(NoEquivalent, match='normalisation of the student'):
        both(tiny, expanded(tiny, DETECTORS['PKD'], tmp_path, teacher=other))
