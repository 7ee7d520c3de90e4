"""FGD with the authors' weights for RepPoints."""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    inherit='auto',
    methods=dict(
        fgd=dict(
            type='FGD',
            temperature=0.5,
            foreground_weight=1.6e-3,
            background_weight=8e-4,
            attention_weight=8e-4,
            relation_weight=8e-6)))
