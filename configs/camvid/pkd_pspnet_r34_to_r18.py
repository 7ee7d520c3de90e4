_base_ = ['./pspnet_r18.py', 'mmkd_plugin::_base_/pkd/neck.py']

distill = dict(teacher='mmkd_plugin::camvid/pspnet_r34.py', teacher_ckpt='work_dirs/camvid/pspnet_r34.pth')
