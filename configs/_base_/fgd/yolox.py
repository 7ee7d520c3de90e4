"""FGD with the authors' weights for YOLOX, where they did not inherit."""

_base_ = './one_stage.py'

distill = dict(
    inherit=False,
    methods=dict(
        fgd=dict(
            foreground_weight=2e-3,
            background_weight=1e-3,
            attention_weight=1e-3,
            relation_weight=1e-5)))
