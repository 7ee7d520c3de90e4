_base_ = ['mmseg::pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py', 'mmkd_plugin::_base_/pspnet_kd/pspnet.py']

model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64))
distill = dict(
    teacher='mmseg::pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r50-d8_512x512_40k_voc12aug/'
    'pspnet_r50-d8_512x512_40k_voc12aug_20200613_161222-ae9c1b8c.pth')
