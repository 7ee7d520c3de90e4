"""Faster R-CNN with AlexNet: one map of 256 channels."""

_base_ = './faster-rcnn_vgg16.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mmkd_plugin.AlexNet', init_cfg=dict(type='Pretrained', checkpoint='torchvision://alexnet')),
    rpn_head=dict(in_channels=256, feat_channels=256),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(output_size=6), out_channels=256),
        bbox_head=dict(in_channels=256, roi_feat_size=6)))
