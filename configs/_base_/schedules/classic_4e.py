"""Four passes at the rate for VOC, for data that are twenty times as many."""

_base_ = './voc07_10e.py'

train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=4, by_epoch=True, milestones=[3], gamma=0.1)]
