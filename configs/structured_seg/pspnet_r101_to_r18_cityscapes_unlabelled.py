"""With Cityscapes' coarsely labelled images, whose labels are not used, beside the finely labelled ones of each batch."""

_base_ = './pspnet_r101_to_r18_cityscapes.py'

distill = dict(unlabelled=dict(images='data/cityscapes/leftImg8bit/train_extra', batch_size=2))
