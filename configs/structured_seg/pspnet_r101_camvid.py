"""The teacher on CamVid, where the zoo has none; its backbone starts from ImageNet."""

_base_ = ['mmseg::_base_/models/pspnet_r50-d8.py', '../_base_/datasets/camvid.py',
          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py']

model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    data_preprocessor=dict(size=(360, 360)),
    backbone=dict(depth=101),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
