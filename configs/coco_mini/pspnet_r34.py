_base_ = ['../_base_/models/pspnet_r34_mini.py', '../_base_/datasets/coco_mini_seg.py', '../_base_/schedules/mini_seg.py']

# What the weights beside this file were trained with.
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=35))
max_iters = 2400
warm_up = 50
train_cfg = dict(max_iters=max_iters, val_interval=800)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, T_max=max_iters - 50, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=400))
