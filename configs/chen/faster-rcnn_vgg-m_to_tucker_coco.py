_base_ = ['../coco/faster-rcnn_tucker.py', 'mmkd_plugin::_base_/chen/paper.py']

distill = dict(
    teacher='mmkd_plugin::coco/faster-rcnn_vgg-m.py',
    teacher_ckpt='work_dirs/coco/faster-rcnn_vgg-m.pth')
