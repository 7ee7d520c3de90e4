"""FGD's ablation of the attentions: focal distillation with the spatial attention alone."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(attend='spatial', relation_weight=0)))
