_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', 'mmkd_plugin::_base_/fgi/authors.py']

distill = dict(
    teacher='mmkd_plugin::voc/faster-rcnn_r101_fpn_1x_voc0712.py',
    teacher_ckpt='work_dirs/voc/faster-rcnn_r101_fpn_1x_voc0712.pth')
optim_wrapper = dict(clip_grad=dict(max_norm=10, norm_type=2))
