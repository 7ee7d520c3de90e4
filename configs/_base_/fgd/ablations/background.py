"""FGD's ablation of the areas: the background alone."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(foreground_weight=0, attention_weight=0, relation_weight=0)))
