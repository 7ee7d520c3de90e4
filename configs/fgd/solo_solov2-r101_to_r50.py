_base_ = ['mmdet::solo/solo_r50_fpn_1x_coco.py', 'mmkd_plugin::_base_/fgd/one_stage.py']

distill = dict(
    teacher='mmdet::solov2/solov2_r101-dcn_fpn_ms-3x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/solov2/solov2_r101_dcn_fpn_3x_coco/solov2_r101_dcn_fpn_3x_coco_20220513_214734-16c966cb.pth',
    inherit=False)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
