_base_ = ['./pspnet_r101_camvid.py', 'mmkd_plugin::_base_/structured_seg/pixel_pair_holistic.py']

model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64))
distill = dict(
    teacher='mmkd_plugin::structured_seg/pspnet_r101_camvid.py',
    teacher_ckpt='work_dirs/structured_seg/pspnet_r101_camvid.pth')
