"""Faster R-CNN with a Tucker-decomposed AlexNet: half of the channels between factors, a tenth in fully-connected layers.

"mmkd compress" makes the weights, with the same ranks, from a trained Faster R-CNN AlexNet; give load_from its file:

    mmkd compress configs/voc/faster-rcnn_alexnet.py work_dirs/voc/faster-rcnn_alexnet.pth work_dirs/voc \
        --ranks 0.5 roi_head.bbox_head.shared_fcs.0=410 roi_head.bbox_head.shared_fcs.1=410

The ranks are shares of the channels, since those of variational Bayes come from trained weights; without --ranks 0.5 the
command takes those, and writes the config that goes with them.
"""

_base_ = './faster-rcnn_alexnet.py'

model = dict(
    backbone=dict(
        type='mmkd_plugin.Factored',
        of='mmkd_plugin.AlexNet',
        ranks={
            'features.0': (None, 32),
            'features.3': (32, 96),
            'features.6': (96, 192),
            'features.8': (192, 128),
            'features.10': (128, 128),
        },
        init_cfg=None),
    roi_head=dict(
        bbox_head=dict(
            type='mmkd_plugin.Factored',
            of='Shared2FCBBoxHead',
            ranks={
                'shared_fcs.0': 410,
                'shared_fcs.1': 410,
            })))
