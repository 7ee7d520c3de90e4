"""FGI as the authors train it: without the loss for 400 iterations, and an adaptation that starts near nothing."""

_base_ = './one_stage.py'

distill = dict(methods=dict(fgi=dict(schedule=dict(start=400), adapt_std=1e-4)))
