_base_ = ['mmdet::solo/solo_r50_fpn_1x_coco.py', 'mmkd_plugin::_base_/fgd/one_stage.py']

distill = dict(
    teacher='mmkd_plugin::fgd/solo_r101_3x.py',
    teacher_ckpt='work_dirs/fgd/solo_r101_3x.pth',
    inherit=True)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
