"""FGD with the authors' weights for RepPoints."""

_base_ = './one_stage.py'

distill = dict(
    methods=dict(
        fgd=dict(
            foreground_weight=1.6e-3,
            background_weight=8e-4,
            attention_weight=8e-4,
            relation_weight=8e-6)))
