"""PKD on the four finest levels of the neck, with the settings that MMRazor publishes for Faster R-CNN.

RetinaNet under a Swin Mask R-CNN has the same there; RetinaNet and RepPoints under X101 teachers have loss_weight 10.
Of a segmentor without a neck the levels of the backbone are compared.
On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(
        pkd=dict(
            type='Feature',
            tap='output',
            levels=4,
            loss=dict(type='mmrazor.PKDLoss'),
            loss_weight=6)))
