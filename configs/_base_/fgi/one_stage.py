"""FGI with the authors' psi and weight, for one-stage detectors with anchors; on a pyramid a box counts on its own level.

On COCO-mini these weights gained more than loss_weight='auto': keep them.
"""

runner_type = 'mmkd_plugin.DistillRunner'

distill = dict(
    teacher=None,
    teacher_ckpt=None,
    methods=dict(
        fgi=dict(
            type='FGI',
            psi=0.5,
            reading='assigned',
            region='anchors',
            loss_weight=0.01)))
