"""FGD's ablation of its two halves: focal distillation alone."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(relation_weight=0)))
