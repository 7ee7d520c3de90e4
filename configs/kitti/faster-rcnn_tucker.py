"""Faster R-CNN with a Tucker-decomposed AlexNet on KITTI; the base tells how its weights are made."""

_base_ = ['../_base_/models/faster-rcnn_tucker.py', '../_base_/datasets/kitti_600.py', '../_base_/schedules/voc07_10e.py']

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
load_from = 'work_dirs/kitti/faster-rcnn_alexnet_tucker.pth'
