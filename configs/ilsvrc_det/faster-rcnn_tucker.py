"""Faster R-CNN with a Tucker-decomposed AlexNet on ILSVRC-DET; the base tells how its weights are made."""

_base_ = [
    '../_base_/models/faster-rcnn_tucker.py',
    '../_base_/datasets/ilsvrc_det.py',
    '../_base_/schedules/classic_4e.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=200)))
load_from = 'work_dirs/ilsvrc_det/faster-rcnn_alexnet_tucker.pth'
