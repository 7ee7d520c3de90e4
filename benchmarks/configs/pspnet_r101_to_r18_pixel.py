_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'mmkd_plugin::_base_/structured_seg/pixel.py']

distill = dict(teacher='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py', teacher_ckpt='random')
