"""Faster R-CNN VGG-M on ILSVRC-DET."""

_base_ = [
    '../_base_/models/faster-rcnn_vgg-m.py',
    '../_base_/datasets/ilsvrc_det.py',
    '../_base_/schedules/classic_4e.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=200)))
