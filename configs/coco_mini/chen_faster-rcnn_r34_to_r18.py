_base_ = ['./faster-rcnn_r18.py', 'mmkd_plugin::_base_/chen/two_stage.py']

distill = dict(
    teacher='mmkd_plugin::coco_mini/faster-rcnn_r34.py', teacher_ckpt='mmkd_plugin::coco_mini/faster-rcnn_r34.pth')
