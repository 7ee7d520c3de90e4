"""FGD with the authors' weights for YOLOX, where they did not inherit."""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    inherit=False,
    methods=dict(
        fgd=dict(
            type='FGD',
            temperature=0.5,
            foreground_weight=2e-3,
            background_weight=1e-3,
            attention_weight=1e-3,
            relation_weight=1e-5)))
