"""FGD's ablation of its two halves: global distillation alone."""

_base_ = '../one_stage.py'

distill = dict(methods=dict(fgd=dict(foreground_weight=0, background_weight=0, attention_weight=0)))
