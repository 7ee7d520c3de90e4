"""Twice as long, for what learns slowly."""

_base_ = './mini_seg.py'

max_iters = 1600
warm_up = 200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=warm_up),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=warm_up,
        end=max_iters,
        T_max=max_iters - warm_up,
        eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=400))
