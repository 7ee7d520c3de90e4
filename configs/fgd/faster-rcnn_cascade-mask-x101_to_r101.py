_base_ = ['mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py', 'mmkd_plugin::_base_/fgd/two_stage.py']

distill = dict(
    teacher='mmdet::dcn/cascade-mask-rcnn_x101-32x4d-dconv-c3-c5_fpn_1x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/dcn/cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco/cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco-e75f90c8.pth',
    inherit=False)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
