"""Faster R-CNN VGG11 on VOC 2007."""

_base_ = ['../_base_/models/faster-rcnn_vgg11.py', '../_base_/datasets/voc07.py', '../_base_/schedules/voc07_10e.py']
