"""The authors' teacher for SOLO, whose weights no zoo has: trained as the zoo's R50, for 36 epochs."""

_base_ = 'mmdet::solo/solo_r50_fpn_3x_coco.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
