"""Knowledge distillation of the class scores alone, without a method for regression or features."""

_base_ = '../fgi_faster-rcnn_r34_to_r18.py'

distill = dict(
    methods=dict(fgi=None, logits=dict(type='Chen', background_weight=1, regression_weight=0, hint_weight=0)))
