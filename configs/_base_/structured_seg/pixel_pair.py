"""Structured distillation: pixels and pairs of pixels, with the released code's weights."""

_base_ = './pixel.py'

distill = dict(methods=dict(pair=dict(type='PairWise', loss_weight=0.5)))
