"""Structured distillation: pixels and pairs of pixels, with the released code's weights.

On COCO-mini these weights and loss_weight='auto' gained alike: take either.
"""

_base_ = './pixel.py'

distill = dict(methods=dict(pair=dict(type='PairWise', loss_weight=0.5)))
