_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', 'mmkd_plugin::_base_/cwd/neck.py']

distill = dict(teacher='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py', teacher_ckpt='random')
