"""Faster R-CNN with a Tucker-decomposed AlexNet on VOC 2007; the base tells how its weights are made."""

_base_ = ['../_base_/models/faster-rcnn_tucker.py', '../_base_/datasets/voc07.py', '../_base_/schedules/voc07_10e.py']

load_from = 'work_dirs/voc/faster-rcnn_alexnet_tucker.pth'
