"""FGD's ablation of the areas: the foreground alone."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(background_weight=0, attention_weight=0, relation_weight=0)))
