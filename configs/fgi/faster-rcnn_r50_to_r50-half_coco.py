"""The paper's R50 of half width, which starts from random weights: no zoo has such a backbone."""

_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py', 'mmkd_plugin::_base_/fgi/authors.py']

model = dict(
    backbone=dict(base_channels=32, stem_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[128, 256, 512, 1024]))
distill = dict(
    teacher='mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_2x_coco/'
    'faster_rcnn_r50_fpn_2x_coco_bbox_mAP-0.384_20200504_210434-a5d8aa15.pth')
optim_wrapper = dict(clip_grad=dict(max_norm=10, norm_type=2))
