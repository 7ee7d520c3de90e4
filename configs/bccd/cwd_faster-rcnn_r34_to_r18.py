_base_ = ['./faster-rcnn_r18.py', 'mmkd_plugin::_base_/cwd/neck.py']

distill = dict(teacher='mmkd_plugin::bccd/faster-rcnn_r34.py', teacher_ckpt='work_dirs/bccd/faster-rcnn_r34.pth')
