_base_ = ['../kitti/faster-rcnn_alexnet.py', 'mmkd_plugin::_base_/chen/paper.py']

distill = dict(
    teacher='mmkd_plugin::kitti/faster-rcnn_vgg-m.py',
    teacher_ckpt='work_dirs/kitti/faster-rcnn_vgg-m.pth')
