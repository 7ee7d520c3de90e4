"""The teacher goes on training under its own guidance: a pair whose accuracy is high from the first iteration on."""

_base_ = ['./pspnet_r34.py', 'mmkd_plugin::_base_/structured_seg/pixel_pair_holistic.py']

distill = dict(teacher='mmkd_plugin::coco_mini/pspnet_r34.py', teacher_ckpt='mmkd_plugin::coco_mini/pspnet_r34.pth')
load_from = 'configs/coco_mini/pspnet_r34.pth'
optim_wrapper = dict(optimizer=dict(lr=2e-4))
