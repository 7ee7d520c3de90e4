_base_ = ['../voc/faster-rcnn_tucker.py', 'mmkd_plugin::_base_/chen/paper.py']

distill = dict(
    teacher='mmkd_plugin::voc/faster-rcnn_vgg-m.py',
    teacher_ckpt='work_dirs/voc/faster-rcnn_vgg-m.pth')
