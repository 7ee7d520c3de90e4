_base_ = ['../_base_/mini/pspnet_r34.py', '../_base_/mini/camvid.py', '../_base_/mini/schedule_seg.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))

max_iters = 1600
train_cfg = dict(max_iters=max_iters, val_interval=800)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, T_max=max_iters - 50, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=400))
