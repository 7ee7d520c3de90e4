_base_ = ['../ilsvrc_det/faster-rcnn_tucker.py', 'mmkd_plugin::_base_/chen/paper.py']

distill = dict(
    teacher='mmkd_plugin::ilsvrc_det/faster-rcnn_vgg-m.py',
    teacher_ckpt='work_dirs/ilsvrc_det/faster-rcnn_vgg-m.pth')
