"""FGD's ablation of the areas: foreground and background, each by itself."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(attention_weight=0, relation_weight=0)))
