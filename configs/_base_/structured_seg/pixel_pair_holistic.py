"""Structured distillation in full: pixels, pairs of pixels and the discriminator, with the authors' weights.

The defaults do not depend on the batch and show the discriminator the image. The released code is
reduction='batch_sum' for the pixels and conditional=False for the discriminator; the paper's pairs are patch=2,
pooling='avg', detach_norm=False, loss_weight=10.

On COCO-mini these weights gained more than loss_weight='auto': keep them.
"""

_base_ = './holistic.py'

distill = dict(
    methods=dict(
        pixel=dict(type='PixelWise', loss_weight=10.0), pair=dict(type='PairWise', loss_weight=0.5)))
