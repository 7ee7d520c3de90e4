"""FGD's ablation of the areas: the whole map, foreground and background not told apart."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(areas='together', attention_weight=0, relation_weight=0)))
