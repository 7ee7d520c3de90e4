"""Structured distillation, pixels alone; the released code's sum is reduction='batch_sum' with the same weight.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(pixel=dict(type='PixelWise', loss_weight=10.0)))
