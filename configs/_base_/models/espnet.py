"""ESPNet for CamVid, with its own decoder."""

_base_ = './espnet-c.py'

model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmkd_plugin.ESPHead',
        in_channels=[19, 131, 256],
        in_index=[0, 1, 2],
        num_classes=11,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
