"""How the losses of each method are fed with made-up batches: one case, or several, for each name in ``METHODS``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from _helpers.situations import STRIDES, Batch, Case
from _helpers.tiny import faster_rcnn, retinanet
from _helpers.tiny_chen import expand, two_stage
from mmkd_plugin.recorders import AnchorSamplesRecorder
from mmkd_plugin.recorders.samples import anchors_first
from mmkd_plugin.registry import METHODS
from mmkd_plugin.utilities.precision import full_precision

CHANNELS = 8
ANCHORS = dict(
    type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=list(STRIDES)
)


def loss_of(method: str, settings: dict[str, Any], prefix: str = '', **given: Any) -> Any:
    """The loss of a method as a user's settings make it."""
    kind: Any = METHODS.get(method)
    return MODELS.build(kind.parse(settings, 'method').loss_config(prefix, **given))


def fgd(batch: Batch) -> dict[str, Tensor]:
    facts = dict(batch.facts(), image_shapes=batch.shapes())
    terms = {}
    for index, (student, teacher) in enumerate(batch.levels(CHANNELS)):
        loss = batch.ready(loss_of('FGD', {}, channels=CHANNELS))
        terms.update({f'{name}{index}': term for name, term in loss.terms(student, teacher, **facts).items()})
    return terms


def fgi(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    students, teachers = zip(*batch.levels(CHANNELS))
    priors = _head(1).prior_generator.grid_priors([batch.cells(stride) for stride in STRIDES], device='cpu')
    loss = loss_of('FGI', settings, strides=STRIDES)
    return loss.terms(students, teachers, **batch.facts(), priors=priors)


def chen_dense(batch: Batch, rpn: bool = False, **settings: Any) -> dict[str, Tensor]:
    """The student's own head assigns and samples, and the recorder tells the losses about it."""
    classes = 1 if rpn else batch.situation.classes
    head, recorder = _head(classes, rpn), AnchorSamplesRecorder('head')
    model = nn.Module()
    model.head = head
    # A focal loss starts with probabilities of 1 %.
    sizes = [(batch.situation.images, cells) for cells in map(batch.cells, STRIDES)]
    count = head.num_base_priors
    logits = [batch.pair(n, count * classes, *cells, offset=0 if rpn else -4.6) for n, cells in sizes]
    boxes = [batch.pair(n, count * 4, *cells) for n, cells in sizes]
    truth = [InstanceData(bboxes=item, labels=labels * (not rpn)) for item, labels in zip(batch.boxes, batch.labels)]
    crowds = [
        InstanceData(bboxes=item[:1] if kind == 'crowd' else item[:0]) for item, kind in zip(batch.boxes, batch.kinds)
    ]
    metas = [dict(img_shape=batch.situation.size, pad_shape=batch.situation.size)] * batch.situation.images
    recorder.initialize(model)
    with recorder:
        head.loss_by_feat([item for item, _ in logits], [item for item, _ in boxes], truth, metas, crowds)
    teachers = dict(logits=[item for _, item in logits], boxes=[item for _, item in boxes])
    columns = dict(logits=classes, boxes=4)
    distiller = _wired(rpn, tuple(settings.items())).distiller
    terms = {}
    for part in ('cls', 'reg'):
        name = f'loss_chen_{"rpn" if rpn else "dense"}_{part}_level0'
        if name not in distiller.distill_losses:
            continue
        loss = MODELS.build(distiller.distill_losses[name])
        for level in range(len(STRIDES)):
            arguments = {
                argument: recorder.get_record_data(level, entry.data_idx)
                if entry.from_student
                else anchors_first(teachers[entry.data_idx][level], columns[entry.data_idx])
                for argument, entry in distiller.loss_forward_mappings[name].items()
            }
            terms.update({f'{key}{level}': term for key, term in loss.terms(**arguments).items()})
    return terms


def chen_roi(batch: Batch) -> dict[str, Tensor]:
    """A quarter of the RoIs are positive at most, and without any proposal there are none."""
    each = min(512, batch.cells(4)[0] * batch.cells(4)[1])
    count, positive = [], []
    for kind, boxes in zip(batch.kinds, batch.boxes):
        count.append(0 if kind == 'outside' else each)
        positive.append(min(len(boxes) * 8, count[-1] // 4))
    regressed = torch.cat([(torch.arange(n) < p).float() for n, p in zip(count, positive)])
    logits = batch.pair(len(regressed), batch.situation.classes + 1, 1)
    deltas = batch.pair(len(regressed), 4, 1)
    classes = loss_of('Chen', {}, sigmoid=False)
    regression = loss_of('Chen', {}, 'regression')
    truth = batch.normal(len(regressed), 4)
    return {
        **classes.terms(*(item[..., 0] for item in logits), torch.ones(len(regressed))),
        **regression.terms(*(item[..., 0] for item in deltas), truth, regressed),
    }


def chen_hint(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    loss = loss_of('Chen', settings, 'hint')
    return {str(index): loss.terms(*pair)['hint'] for index, pair in enumerate(batch.levels(CHANNELS))}


def pixel_wise(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    return loss_of('PixelWise', settings).terms(*_class_maps(batch))


def pair_wise(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    return loss_of('PairWise', settings).terms(*batch.pair(batch.situation.images, CHANNELS, *batch.cells(8)))


def holistic(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    """The discriminator's terms are its own business, but must be numbers too."""
    student, teacher = _class_maps(batch)
    settings = dict(settings, widths=[8, 8])
    loss = batch.ready(loss_of('Holistic', settings, num_classes=batch.situation.classes, image_channels=3))
    image = batch.normal(batch.situation.images, 3, *batch.situation.size).to(student.dtype)
    mix = torch.rand(batch.situation.images, 1, 1, 1, generator=batch.random).to(loss.discriminator.last.weight)
    return {**loss.terms(student, image), **loss.discriminator_terms(student, teacher, image, mix)}


def pspnet_kd(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    label = torch.randint(batch.situation.classes, (batch.situation.images, *batch.cells(2)), generator=batch.random)
    label[torch.rand(label.shape, generator=batch.random) < 0.1] = 255
    for pixels, kind in zip(label, batch.kinds):
        if kind in ('none', 'one'):
            first = pixels[0, 0].clone()
            pixels[:] = 255
            pixels[0, 0] = first % batch.situation.classes if kind == 'one' else 255
    main, auxiliary = _class_maps(batch, 2), _class_maps(batch, 2)
    ignored = 255 if settings.pop('ignore', False) else None
    return loss_of('PSPNetKD', settings, ignore_index=ignored).terms(*main, *auxiliary, label)


def feature(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    """A loss of MMRazor, in single precision as the distiller runs it."""
    loss = MODELS.build(dict(settings, _scope_='mmrazor'))
    return {str(index): full_precision(loss)(*pair) for index, pair in enumerate(batch.levels(CHANNELS))}


CASES: dict[str, dict[str, Case]] = {
    'Chen': {
        'dense': chen_dense,
        'dense, plain distance': functools.partial(chen_dense, regression_form='l2'),
        'rpn': functools.partial(chen_dense, rpn=True),
        'roi': chen_roi,
        'hint': chen_hint,
        'hint, L1': functools.partial(chen_hint, hint_norm='l1'),
    },
    'FGD': {'': fgd},
    'FGI': {
        '': fgi,
        'every level': functools.partial(fgi, reading='all'),
        'one maximum': functools.partial(fgi, reading='global'),
        'boxes': functools.partial(fgi, region='boxes'),
        'whole maps': functools.partial(fgi, region='all'),
    },
    'Feature': {
        'CWD': functools.partial(feature, type='ChannelWiseDivergence'),
        'PKD': functools.partial(feature, type='PKDLoss'),
        'AT': functools.partial(feature, type='ATLoss'),
        'L1': functools.partial(feature, type='L1Loss'),
        'L2': functools.partial(feature, type='L2Loss'),
    },
    'Holistic': {'': holistic, 'logits alone': functools.partial(holistic, conditional=False)},
    'PSPNetKD': {'': pspnet_kd, 'ignore': functools.partial(pspnet_kd, ignore=True)},
    'PairWise': {'': pair_wise, 'every cell': functools.partial(pair_wise, patch=1)},
    'PixelWise': {'': pixel_wise, 'master branch': functools.partial(pixel_wise, reduction='batch_sum')},
}
"""By method and variant."""


def _class_maps(batch: Batch, stride: int = 8) -> tuple[Tensor, Tensor]:
    return batch.pair(batch.situation.images, batch.situation.classes, *batch.cells(stride))


@functools.lru_cache(maxsize=None)
def _head(classes: int, rpn: bool = False) -> Any:
    """A dense head with MMDetection's stock anchors; its layers are not used."""
    init_default_scope('mmdet')
    if rpn:
        model = faster_rcnn()
        sampler = dict(model['train_cfg']['rpn']['sampler'], num=256)
        head = dict(model['rpn_head'], train_cfg=dict(model['train_cfg']['rpn'], sampler=sampler))
        anchors = dict(ANCHORS, scales_per_octave=1)
    else:
        model = retinanet()
        head, anchors = dict(model['bbox_head'], num_classes=classes, train_cfg=model['train_cfg']), ANCHORS
    return MMDET_MODELS.build(dict(head, anchor_generator=anchors))


@functools.lru_cache(maxsize=None)
def _wired(rpn: bool, settings: tuple[tuple[str, Any], ...]) -> Any:
    """What Chen's block expands to."""
    keys = dict(settings, hint_weight=0)
    return two_stage(heads='dense', **keys) if rpn else expand(**keys)
