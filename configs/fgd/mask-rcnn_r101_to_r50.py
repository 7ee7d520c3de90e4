_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py', 'mmkd_plugin::_base_/fgd/two_stage.py']

distill = dict(
    teacher='mmdet::mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r101_fpn_2x_coco/mask_rcnn_r101_fpn_2x_coco_bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7.pth',
    inherit=True)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
