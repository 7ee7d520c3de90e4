_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', 'mmkd_plugin::_base_/fgd/one_stage.py']

distill = dict(
    teacher='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
    inherit=True)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
