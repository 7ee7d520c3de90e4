"""Structured distillation, the discriminator alone, with the authors' weights.

The discriminator sees the image, as in the paper; conditional=False is the released code, which judges the logits alone.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(holistic=dict(
        type='Holistic',
        loss_weight=0.1,
        discriminator_weight=0.1,
        penalty_weight=10.0,
        optimizer=dict(type='SGD', lr=4e-4, momentum=0.9, weight_decay=5e-4),
        param_scheduler=dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False))))
