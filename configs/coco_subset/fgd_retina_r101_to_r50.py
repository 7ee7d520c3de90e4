_base_ = ['./retina_r50.py', 'mmkd_plugin::_base_/fgd/one_stage.py']

distill = dict(
    teacher='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
    'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
    inherit=True)
