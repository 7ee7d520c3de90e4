"""Faster R-CNN AlexNet on COCO."""

_base_ = [
    '../_base_/models/faster-rcnn_alexnet.py',
    '../_base_/datasets/coco_600.py',
    '../_base_/schedules/classic_4e.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=80)))
