"""The ablation without the discriminator."""

_base_ = './pspnet_r101_to_espnet_camvid.py'

distill = dict(methods=dict(holistic=None))
