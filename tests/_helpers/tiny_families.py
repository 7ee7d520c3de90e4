"""Small detectors of further families, made from those of ``tiny``."""

from __future__ import annotations

import copy

from _helpers.tiny import faster_rcnn, retinanet


def changed(model: dict, path: str, value) -> dict:
    """A model config with one key changed."""
    model = copy.deepcopy(model)
    *parents, last = path.split('.')
    node = model
    for key in parents:
        node = node[key]
    node[last] = value
    return model


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


def deeplab(width: int = 24) -> dict:
    """A segmentor of another family than ``tiny_seg``'s, without an auxiliary head, and of another output stride."""
    from _helpers.tiny_seg import pspnet

    model = pspnet(width, auxiliary=False)
    model['backbone'].update(dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1))
    model['decode_head'].update(type='ASPPHead', dilations=(1, 2))
    del model['decode_head']['pool_scales']
    return model
