"""CWD on every level of the neck, with the settings that MMRazor publishes for RetinaNet, GFL and Faster R-CNN.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(
        cwd=dict(
            type='Feature',
            tap='output',
            loss=dict(type='mmrazor.ChannelWiseDivergence', tau=1),
            loss_weight=10)))
