"""Main and auxiliary logits for PSPNet, and any other encoder-decoder with an auxiliary head.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
Beside 'auto', hard_share=1 gained more than the share that is left here.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(pspnet_kd=dict(type='PSPNetKD', temperature=1.9, hard_share=0.25, aux_weight=1.0)))
