"""Faster R-CNN VGG16 on KITTI."""

_base_ = ['../_base_/models/faster-rcnn_vgg16.py', '../_base_/datasets/kitti_600.py', '../_base_/schedules/voc07_10e.py']

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
