"""The authors' training on VOC: crops of 473, batches of 4, 50 passes, ten times the rate on what is new.

10,582 images in batches of 4 make 132,250 iterations of 50 passes. Which layers are new is what ImageNet does not give:
both heads.
"""

_base_ = ['mmseg::_base_/models/pspnet_r50-d8.py', '../_base_/datasets/voc12aug_473.py',
          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_160k.py',
          'mmkd_plugin::_base_/pspnet_kd/pspnet.py']

max_iters = 132250
model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    data_preprocessor=dict(size=(473, 473)),
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128, num_classes=21),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=21))
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0), auxiliary_head=dict(lr_mult=10.0))))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters, val_interval=13225)
default_hooks = dict(checkpoint=dict(interval=13225))
distill = dict(
    teacher='mmseg::pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r50-d8_512x512_40k_voc12aug/'
    'pspnet_r50-d8_512x512_40k_voc12aug_20200613_161222-ae9c1b8c.pth')
