"""The paper's ResNet18 of half width, which starts from random weights: no zoo has such a backbone."""

_base_ = './pspnet_r101_to_r18_cityscapes.py'

model = dict(
    pretrained=None,
    backbone=dict(base_channels=32, stem_channels=32),
    decode_head=dict(in_channels=256, channels=64),
    auxiliary_head=dict(in_channels=128, channels=32))
