"""Chen et al. 2017 as the paper has it, for Faster R-CNN: the hint is taken from the backbone."""

_base_ = './two_stage.py'

distill = dict(methods=dict(chen=dict(tap='backbone')))
