"""FGD with the authors' weights for one-stage detectors with anchors (RetinaNet, GFL) and for SOLO.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    inherit='auto',
    methods=dict(
        fgd=dict(
            type='FGD',
            temperature=0.5,
            foreground_weight=1e-3,
            background_weight=5e-4,
            attention_weight=5e-4,
            relation_weight=5e-6)))
