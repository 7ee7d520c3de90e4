"""FGD's ablation of the attentions: focal distillation with the channel attention alone."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(attend='channel', relation_weight=0)))
