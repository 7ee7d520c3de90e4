"""Chen et al. 2017 with the paper's weights, for one-stage detectors with anchors.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(
        chen=dict(
            type='Chen',
            hard_share=0.5,
            background_weight=1.5,
            temperature=1.0,
            regression_weight=0.5,
            regression_margin=0.0,
            hint_weight=0.5)))
