"""Ten passes over VOC 2007 with one image a step, as py-faster-rcnn's 50k iterations and the rate of FGI's authors."""

_base_ = 'mmdet::_base_/default_runtime.py'

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=3e-3, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10, norm_type=2))
param_scheduler = [dict(type='MultiStepLR', begin=0, end=10, by_epoch=True, milestones=[7], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=1)
