"""A wider and deeper RetinaNet of the same form, the teacher."""

_base_ = './retina_r18_mini.py'

model = dict(
    backbone=dict(depth=34, base_channels=24, stem_channels=24),
    neck=dict(in_channels=[24, 48, 96, 192], out_channels=48),
    bbox_head=dict(in_channels=48, feat_channels=48))
