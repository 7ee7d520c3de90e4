_base_ = ['mmdet::reppoints/reppoints-moment_r50_fpn-gn_head-gn_2x_coco.py', 'mmkd_plugin::_base_/fgd/reppoints.py']

distill = dict(
    teacher='mmdet::reppoints/reppoints-moment_r101_fpn-gn_head-gn_2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/reppoints/reppoints_moment_r101_fpn_gn-neck%2Bhead_2x_coco/reppoints_moment_r101_fpn_gn-neck%2Bhead_2x_coco_20200329-4fbc7310.pth',
    inherit=True)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
