"""FGD with the authors' weights for Faster and Mask R-CNN."""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    inherit='auto',
    methods=dict(
        fgd=dict(
            type='FGD',
            temperature=0.5,
            foreground_weight=5e-5,
            background_weight=2.5e-5,
            attention_weight=5e-5,
            relation_weight=5e-7)))
