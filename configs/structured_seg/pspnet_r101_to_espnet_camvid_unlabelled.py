"""With road scenes of Cityscapes, whose labels are not used, beside the images of CamVid."""

_base_ = './pspnet_r101_to_espnet_camvid.py'

distill = dict(unlabelled=dict(images='data/cityscapes/leftImg8bit/train'))
