"""The light detector on KITTI at 0.5 of the width, the student alone."""

_base_ = ['../_base_/models/lite_kitti.py', '../_base_/datasets/kitti_lite.py', '../_base_/schedules/lite_kitti_40k.py']

model = dict(backbone=dict(width=0.5), bbox_head=dict(in_channels=384))
