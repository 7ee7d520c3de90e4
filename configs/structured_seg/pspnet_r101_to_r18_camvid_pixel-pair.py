"""The ablation without the discriminator."""

_base_ = './pspnet_r101_to_r18_camvid.py'

distill = dict(methods=dict(holistic=None))
