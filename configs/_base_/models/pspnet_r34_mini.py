"""A wider and deeper PSPNet of the same form, the teacher."""

_base_ = './pspnet_r18_mini.py'

model = dict(
    backbone=dict(depth=34, base_channels=16, stem_channels=16),
    decode_head=dict(in_channels=128, channels=48),
    auxiliary_head=dict(in_channels=64, channels=24))
