"""Faster R-CNN VGG16 on VOC 2007: the teacher of Chen et al. and of FGI's authors, which no zoo has; train it first."""

_base_ = ['../_base_/models/faster-rcnn_vgg16.py', '../_base_/datasets/voc07.py', '../_base_/schedules/voc07_10e.py']
