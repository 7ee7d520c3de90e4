_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', 'mmkd_plugin::_base_/fgd/one_stage.py']

distill = dict(
    teacher='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    inherit=True)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
