"""Twice as long, for data that is generated and therefore plenty.

From random weights early steps decide much: a slow warm-up and tightly clipped gradients make runs differ less.
"""

_base_ = './mini.py'

max_iters = 800
warm_up = 200
optim_wrapper = dict(optimizer=dict(lr=3e-3), clip_grad=dict(max_norm=1))
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
