"""Faster R-CNN with VGG-M, whose weights no zoo has; give backbone.init_cfg a checkpoint of your own."""

_base_ = './faster-rcnn_vgg16.py'

model = dict(
    backbone=dict(_delete_=True, type='mmkd_plugin.VGGM'),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(output_size=6)), bbox_head=dict(roi_feat_size=6, fc_out_channels=1024)))
