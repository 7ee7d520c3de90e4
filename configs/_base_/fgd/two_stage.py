"""FGD with the authors' weights for Faster and Mask R-CNN.

On COCO-mini loss_weight='auto' gained more than these weights: take it.
"""

_base_ = './one_stage.py'

distill = dict(
    methods=dict(
        fgd=dict(
            foreground_weight=5e-5,
            background_weight=2.5e-5,
            attention_weight=5e-5,
            relation_weight=5e-7)))
