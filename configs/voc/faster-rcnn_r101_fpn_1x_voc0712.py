"""Faster R-CNN R101 on VOC 2007 and 2012, as the zoo's R50: a teacher that no zoo has; train it first."""

_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
