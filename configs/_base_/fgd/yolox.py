"""FGD with the authors' weights for YOLOX: behind norm and activation, divided by the area of the input, not inherited."""

_base_ = './one_stage.py'

distill = dict(
    inherit=False,
    methods=dict(
        fgd=dict(
            tap='output',
            usual_size=(640, 640),
            foreground_weight=2e-3,
            background_weight=1e-3,
            attention_weight=1e-3,
            relation_weight=1e-5)))
