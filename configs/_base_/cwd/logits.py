"""CWD on a segmentor's logits, with the settings that MMRazor publishes for PSPNet R101 to R18 on Cityscapes.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(
        cwd=dict(
            type='Feature',
            tap='decode_head.conv_seg',
            adapt='never',
            same_classes=True,
            loss=dict(type='mmrazor.ChannelWiseDivergence', tau=1),
            loss_weight=5)))
