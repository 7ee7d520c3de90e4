"""FGD on the features and Chen et al. on classes and boxes."""

_base_ = './fgd_retina_r34_to_r18.py'

distill = dict(methods=dict(chen=dict(type='Chen', hint_weight=0)))
