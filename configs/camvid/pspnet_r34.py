"""The teacher: images of three quarters to twice their size, changed colours, and Dice beside the cross-entropy."""

_base_ = ['../_base_/models/pspnet_r34_mini.py', '../_base_/datasets/camvid_mini.py', '../_base_/schedules/mini_seg.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    decode_head=dict(
        num_classes=11,
        loss_decode=[
            dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            dict(type='DiceLoss', loss_weight=1.0),
        ]),
    auxiliary_head=dict(num_classes=11))

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(240, 180), ratio_range=(0.75, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(160, 160), cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ]))

max_iters = 4800
train_cfg = dict(max_iters=max_iters, val_interval=1200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters, T_max=max_iters - 200, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=400))
