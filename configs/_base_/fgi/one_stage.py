"""FGI with the authors' psi and weight, for one-stage detectors with anchors; on a pyramid a box counts on its own level."""

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
