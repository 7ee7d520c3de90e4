"""The light detector on KITTI at full width: the teacher, which no zoo has; train it first."""

_base_ = ['../_base_/models/lite_kitti.py', '../_base_/datasets/kitti_lite.py', '../_base_/schedules/lite_kitti_40k.py']

model = dict(backbone=dict(stem_channels=16))
