"""Faster R-CNN with VGG11, otherwise as with VGG16."""

_base_ = './faster-rcnn_vgg16.py'

model = dict(backbone=dict(depth=11, init_cfg=dict(checkpoint='torchvision://vgg11')))
