"""The light detector of FGI's paper for KITTI: a ShuffleNet with a single map, nine anchors, and one 3x3 convolution.

Layers, widths, anchors and input are the authors'. The losses are MMDetection's for one-stage detectors in the place of
SqueezeDet's, and the dropout before the last convolution is left out.
"""

model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='mmkd_plugin.LiteShuffleNet', width=1.0, stem_channels=24, norm_cfg=dict(type='SyncBN')),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=3,
        in_channels=768,
        stacked_convs=0,
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            strides=[16],
            base_sizes=[[(36, 37), (366, 174), (115, 59), (162, 87), (38, 90), (258, 173), (224, 108), (78, 170),
                         (72, 43)]]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=0.5),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.005, nms=dict(type='nms', iou_threshold=0.4), max_per_img=64))
