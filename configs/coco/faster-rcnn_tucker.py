"""Faster R-CNN with a Tucker-decomposed AlexNet on COCO; the base tells how its weights are made."""

_base_ = [
    '../_base_/models/faster-rcnn_tucker.py',
    '../_base_/datasets/coco_600.py',
    '../_base_/schedules/classic_4e.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=80)))
load_from = 'work_dirs/coco/faster-rcnn_alexnet_tucker.pth'
