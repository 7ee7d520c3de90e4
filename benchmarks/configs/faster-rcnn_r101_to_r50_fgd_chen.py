_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py', 'mmkd_plugin::_base_/fgd/two_stage.py']

distill = dict(
    teacher='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
    teacher_ckpt='random',
    methods=dict(chen=dict(type='Chen', hint_weight=0)),
)
